"""What would have to be different for another answer: the smallest change of a text that turns it.

Two kinds. *Without*: the fewest words whose removal turns the answer (SEDC; Martens & Provost, 2014, Explaining
Data-Driven Document Classifications), by a beam over sets of words, cut down until none of them can come back. It says
which words carry the answer, together. *Instead*: one word replaced by another that a masked language model finds
likely in its place (the idea of Ross et al., 2021, MiCE, with one word). It reads as a text that somebody might have
written, and needs a model that knows what people write.

Every change is read anew as a text, and counts only if the answer is another then.
"""

from __future__ import annotations

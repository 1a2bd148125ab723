"""Many tasks in a row: one shared body, a head for each task, and what protects the earlier tasks.

| file | what |
|---|---|
| `spec.py` | the YAML file, validated as a whole |
| `heads.py` | splitting a model into body and head, several heads over one pass of the body |
| `memory.py` | which rows are stored, and where |
| `replay.py`, `lwf.py`, `agem.py`, `joint.py` | terms and projections, one method a file |
| `methods.py` | names of strategies, and what `auto` stands for |
| `job.py` | one task as a `Job` of the ordinary stages |
| `run.py`, `extend.py` | the whole order; one more task |
| `figures.py` | accuracy matrix, transfer, forgetting, with intervals |
| `model.py` | the final folder: predict with a named task, export it |

This module stays light: the command line imports it to answer `--help`.
"""

from __future__ import annotations

"""How many labels are enough: a learning curve over nested subsets, its law, and what more labels would bring."""

"""The training loop and what it needs."""

import logging

# where bitsandbytes is installed, accelerate imports it, and it speaks of faster kernels that it looks for
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

"""What the evaluation scripts share: their flags, and the work once the flags are read.

Imports anything below the scripts, report included; only scripts may import it.
"""

import utils  # noqa: F401 - takes Ctrl-C over before large imports run

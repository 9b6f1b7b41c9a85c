"""``python -m secli`` and the console script ``secli``."""

import sys

from secli import signals

# Before the rest is imported, which takes a second. Processes that multiprocessing spawns import this too, and have
# no file of their own; those that only import it are no commands.
_SCRIPT = sys.argv[0].replace("\\", "/").rpartition("/")[2] in ("secli", "secli.exe")
if __name__ == "__main__" or (_SCRIPT and hasattr(sys.modules["__main__"], "__file__")):
    signals.install()

from secli.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()

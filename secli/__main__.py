"""``python -m secli`` and the console script ``secli``."""

from secli.cli.app import main

if __name__ == "__main__":
    main()

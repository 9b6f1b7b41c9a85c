"""All campaigns, each in a process of its own: ``make campaign``."""

from __future__ import annotations

import subprocess
import sys

CAMPAIGNS = ("kill", "fault", "bad_input", "hostile_names")


def main() -> int:
    """Carry out every campaign in full; 1 when one of them lost something."""
    commands = [[sys.executable, "-m", f"tests.campaigns.{name}"] for name in CAMPAIGNS]
    codes = [subprocess.run(command, check=False).returncode for command in commands]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())

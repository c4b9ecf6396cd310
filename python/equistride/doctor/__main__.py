"""``python -m equistride.doctor``: the same as ``equistride doctor`` where that does not start."""

import sys

from equistride.doctor.examine import examine
from equistride.doctor.screen import healthy, screen

if __name__ == "__main__":
    findings = examine()
    print(screen(findings))
    sys.exit(0 if healthy(findings) else 1)

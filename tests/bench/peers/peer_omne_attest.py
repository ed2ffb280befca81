"""omne-attest over one SEV-SNP report: chain, binding, report. It judges no validity in time and no list."""

from turns import take_turns  # isort: split

import hashlib
import sys
from pathlib import Path

from omne_attest import Policy, verify

folder = Path(sys.argv[1])
report, vek, ask, ark = ((folder / name).read_bytes() for name in ("report", "vek", "ask", "ark"))
pin = hashlib.sha256(ark).digest()
take_turns(lambda: verify(report, vek, ask, ark, pin, Policy(reject_debug=True)))

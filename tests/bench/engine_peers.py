"""Install the engines that ours is measured against: `python -m tests.bench.engine_peers [NAME ...]`.

Some gigabytes and some minutes, so `make bench` does not do it by itself.
"""

import argparse

from tests.bench.engine_subjects import INSTALLS, install

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine_peers", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*INSTALLS, []], help="the default: all of them")
    install(parser.parse_args().names or list(INSTALLS))

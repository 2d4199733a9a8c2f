#!/usr/bin/env python3
"""Build the zipapp dist/authproxy.pyz, and optionally run it.

    python3 zipapp/build.py [--python VERSIONS] [--platform PLATFORMS] [--otlp]
                            [--release] [--output FILE] [--run ARGUMENTS ...]

Requires Python 3.11+ with pip or venv, and pip's package index. The zipapp contains the
wheels that zipapp/requirements.txt locks (with --otlp: requirements-otlp.txt), for each requested Python and platform; without
a request, for those of this machine. If the sources have not changed since the last
build, the existing zipapp is used.

The syntax of this file is valid since Python 2.7, as that of entry.py.
"""

import sys

import entry

if __name__ == "__main__":
    if sys.version_info < entry.MINIMUM:
        sys.exit(entry.main())
    from assemble import main

    sys.exit(main(sys.argv[1:]))

"""The zipapp's first module: reject old Pythons, then start.

Its syntax is valid since Python 2.7, so that each Python prints one line.
"""

import sys

MINIMUM = (3, 11)


def main():
    """Run the program and return the exit code."""
    if sys.version_info < MINIMUM:
        found = ".".join(map(str, sys.version_info[:3]))
        return fail("Python 3.11 or later is required, this is " + found)
    try:
        import bootstrap
    except Exception as error:  # noqa: BLE001 - a damaged module fails with any error
        return fail(sys.argv[0] + " is damaged: " + str(error) + "; copy it again")
    return bootstrap.main()


def fail(text):
    """Print an error and return the exit code."""
    sys.stderr.write("authproxy: " + text + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

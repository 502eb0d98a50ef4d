"""`make bench`: run every case and print its table."""

import argparse
import asyncio

from bench import steady


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the steady case (default 60)")
    parser.add_argument("--rate", type=float, default=200.0, help="its updates per second (default 200)")
    given = parser.parse_args()
    print(asyncio.run(steady.run(given.rate, given.seconds)))


if __name__ == "__main__":
    main()

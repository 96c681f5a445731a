"""Compare the results of two runs: every *.results.json of one folder with the file of the same name in another.

Usage: python tests/compare_results.py BEFORE AFTER

Prints every difference except in "seconds" and "versions", which change from run to run. The exit status is 0 if there
is none, and 1 otherwise.
"""

import argparse
import json
import sys
from pathlib import Path

FACTS_OF_A_RUN = ("seconds", "versions")


def equal(before, after, where):
    """Whether two JSON values that are neither object nor array are the same; 1 and 1.0 are not."""
    return type(before) is type(after) and before == after


def differences(before, after, where="results", same=equal):
    """List where two JSON values differ; `same(before, after, where)` compares texts, numbers and constants."""
    if isinstance(before, dict) and isinstance(after, dict):
        only_before = [f"{where}.{key}: only before" for key in before if key not in after]
        only_after = [f"{where}.{key}: only after" for key in after if key not in before]
        shared = [(key, before[key], after[key]) for key in before if key in after]
        inside = [line for key, b, a in shared for line in differences(b, a, f"{where}.{key}", same)]
        return only_before + only_after + inside
    if isinstance(before, list) and isinstance(after, list):
        lengths = [f"{where}: {len(before)} items before, {len(after)} after"] if len(before) != len(after) else []
        pairs = enumerate(zip(before, after, strict=False))
        return lengths + [line for n, (b, a) in pairs for line in differences(b, a, f"{where}[{n}]", same)]
    return [] if same(before, after, where) else [f"{where}: {before!r} before, {after!r} after"]


def compare_folders(before, after):
    """List the differences between the results files of two folders."""
    files = {folder: {path.name for path in folder.glob("*.results.json")} for folder in (before, after)}
    lines = [f"{name}: only in {before}" for name in sorted(files[before] - files[after])]
    lines += [f"{name}: only in {after}" for name in sorted(files[after] - files[before])]
    for name in sorted(files[before] & files[after]):
        first, second = (json.loads((folder / name).read_text(encoding="utf-8")) for folder in (before, after))
        for fact in FACTS_OF_A_RUN:
            first.pop(fact, None)
            second.pop(fact, None)
        lines += differences(first, second, name.removesuffix(".results.json"))
    return lines


def main(words=None):
    """Print the differences and return the exit status."""
    parser = argparse.ArgumentParser(description="Compare every *.results.json of two folders.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    folders = parser.parse_args(words)
    for folder in (folders.before, folders.after):
        if not any(folder.glob("*.results.json")):
            parser.error(f"{folder} holds no *.results.json")
    lines = compare_folders(folders.before, folders.after)
    print("\n".join(lines) or "no differences")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())

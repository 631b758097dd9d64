#!/usr/bin/env python3
"""Fails when a normal dependency is banned, or its licence cannot be satisfied by those allowed here."""

import json
import re
import subprocess
import sys

ALLOWED = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause"}
BANNED = {"openssl", "openssl-sys", "tokio", "md5"}
# The drivers of the databases bring more, and nobody gets them who does not ask for a store: tokio itself, a hash in
# sqlx (Zlib), one in redis (BSL-1.0), and Unicode's tables in `url`. All are as permissive; the core stays stricter.
CORE = "axum json metrics test-util"
STORES = "postgres redis sqlite"
ALLOWED_IN_STORES = ALLOWED | {"BSL-1.0", "Unicode-3.0", "Zlib"}
BANNED_IN_STORES = BANNED - {"tokio"}
TARGETS = [
    "x86_64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "x86_64-unknown-freebsd",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
]


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def normal_tree(features):
    """Name and version of every crate an application gets with this one, on any of the targets.

    From `cargo tree`, because the graph in `cargo metadata` has the features on that only tests ask for. Not
    `--target all`: that shows crates behind `cfg(any())`, which are there to pin a version and are never built.
    """
    flags = ["--edges", "normal", "--features", features, "--prefix", "none", "--no-dedupe"]
    flags += [f"--target={target}" for target in TARGETS]
    lines = cargo("tree", *flags).splitlines()
    return {tuple(line.split()[:2]) for line in lines if line.strip()}


def licences():
    """The licence expression of every crate in the lock file, by name and version."""
    packages = json.loads(cargo("metadata", "--format-version", "1", "--all-features"))["packages"]
    return {(package["name"], "v" + package["version"]): package["license"] for package in packages}


def satisfied(expression, allowed=frozenset(ALLOWED)):
    """Whether an SPDX expression can be satisfied by what is allowed; `/` is an old way to write OR."""
    tokens = re.findall(r"[()]|[^\s()]+", (expression or "").replace("/", " OR "))

    def either():
        answer = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            answer = both() or answer
        return answer

    def both():
        answer = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            answer = one() and answer
        return answer

    def one():
        if not tokens:
            return False
        token = tokens.pop(0)
        if token == "(":
            answer = either()
            return bool(tokens) and tokens.pop(0) == ")" and answer
        if tokens and tokens[0] == "WITH":
            del tokens[:2]
            return False
        return token in allowed

    answer = either()
    return answer and not tokens


def self_check():
    good = ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND BSD-3-Clause", "GPL-3.0 OR (MIT AND MIT)"]
    bad = ["", None, "GPL-3.0", "MIT AND Unicode-3.0", "(MIT", "MIT MIT", "Apache-2.0 WITH LLVM-exception", "OR"]
    wrong = [e for e in good if not satisfied(e)] + [e for e in bad if satisfied(e)]
    if wrong:
        sys.exit(f"the licence check itself is wrong about {wrong}")


def offences(tree, known, allowed, banned):
    for crate in sorted(tree):
        name, licence = crate[0], known.get(crate)
        if name in banned:
            yield f"{' '.join(crate)}: banned"
        if not satisfied(licence, allowed):
            yield f"{' '.join(crate)}: licence {licence or 'unknown'}"


def main():
    self_check()
    known, failed = licences(), False
    for features, allowed, banned in [
        (CORE, ALLOWED, BANNED),
        (f"{CORE} {STORES}", ALLOWED_IN_STORES, BANNED_IN_STORES),
    ]:
        tree = normal_tree(features)
        found = list(offences(tree, known, allowed, banned))
        print(*found, f"{features}: {len(tree)} crates, {len(found)} offences", sep="\n")
        failed = failed or bool(found) or len(tree) < 2
    sys.exit(1 if failed else 0)


main()

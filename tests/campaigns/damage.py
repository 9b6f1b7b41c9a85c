"""Ways in which a file is damaged, or says what it should not; each is drawn from a seeded generator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Chance = random.Random

WEIRD: tuple[Any, ...] = (
    None, True, -1, 0, 3.7, 10**40, 2**63, 1e308, -1e308, 1e-320, "", "1", "nan", "x" * 2000, "../../outside", "/etc",
    "\x1b]0;t\x07\x1b[31mred", "=1+1", "<script>alert(1)</script>", "$\\frac{$", "a\nb", "\u202eevil", "💥", [], {},
    [[[]]],
    [1, "a"], {"a": {"b": None}}, ["x"] * 50,
)  # fmt: skip
TEXTS: tuple[Any, ...] = (
    b"", b"{", b"[" * 100_000, b"\xff\xfe\x00", b"not json", b"null", b"[]", b"\x00" * 64, b'{"schema_version": true}',
    b'{"schema_version": NaN}', b'{"schema_version": 1' + b"1" * 5000 + b"}", b'{"a": 1e999}', b'"\\ud800"',
)  # fmt: skip
YAMLS = (
    "a: &a [*a]", "model: [", "x: !!python/object:os.system {}", "? [1]: 2", "model: {name: [cnn]}", "- 1", "model: 3",
    "training: {epochs: 2001-99-99}", "training: {lr: .nan}", "training: {1: 2}", "measure: {factors: [0]}",
    "training: " + "[" * 3000, "data: \"a\\0b\"", "model: {name: cnn, options: {widths: &w [*w]}}", "a: " + "9" * 5000,
    "name: ../../x\nabout: a\nmodels: [cnn]\ndatasets: [digits]",
    "models: [cnn]\ndatasets: [{name: digits, realisations: 1e40}]",
    "name: x\nabout: a\nmodels: [cnn]\ndatasets: [digits]\ntables: [{title: t, rows: [nothing]}]",
    "name: x\nabout: a\nmodels: [cnn]\ndatasets: [digits]\nmeasure: {taps: [nothing]}",
    "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nmodel: [*e,*e,*e,*e,*e,*e,*e,*e]",
)  # fmt: skip


def raw(chance: Chance, file: Path) -> str:
    """Damage the bytes of any file."""
    content = bytearray(file.read_bytes())
    how = chance.choice(("empty", "cut", "flipped", "text", "longer", "directory", "zeros"))
    if how == "empty":
        content = bytearray()
    elif how == "cut":
        content = content[: chance.randrange(max(1, len(content)))]
    elif how == "flipped":
        for _ in range(chance.choice((1, 8, 64))):
            if content:
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif how == "text":
        content = bytearray(chance.choice(TEXTS))
    elif how == "longer":
        content += bytes(chance.randrange(256) for _ in range(50))
    elif how == "zeros":
        start = chance.randrange(max(1, len(content)))
        content[start : start + 40] = b"\0" * 40
    file.unlink()
    if how == "directory":
        file.mkdir()
    else:
        file.write_bytes(content)
    return how


def in_json(chance: Chance, file: Path) -> str:
    """Change one value of a JSON file, or drop or add a key; now and then damage its bytes."""
    if chance.random() < 0.25:
        return raw(chance, file)
    content = json.loads(file.read_text(encoding="utf-8"))
    told = _change(chance, content)
    file.write_text(json.dumps(content), encoding="utf-8")
    return told


def in_yaml(chance: Chance, file: Path) -> str:
    """Change one value of a YAML file, or put another text in its place."""
    draw = chance.random()
    if draw < 0.2:
        return raw(chance, file)
    if draw < 0.6:
        text = chance.choice(YAMLS)
        file.write_text(text, encoding="utf-8")
        return text[:60]
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    told = _change(chance, content)
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return told


def _change(chance: Chance, content: Any) -> str:
    """Change one value somewhere in a tree."""
    places = list(_places(content))
    holder, key = chance.choice(places)
    how = chance.choice(("value", "value", "value", "drop", "add"))
    if how == "drop" and isinstance(holder, dict):
        del holder[key]
        return f"without {key}"
    if how == "add" and isinstance(holder, dict):
        holder[chance.choice(("colour", "x" * 500, "../x", ""))] = chance.choice(WEIRD)
        return "one key more"
    holder[key] = chance.choice(WEIRD)
    return f"{key} = {str(holder[key])[:40]!r}"


def _places(content: Any) -> Any:
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    for key in keys:
        yield content, key
        if isinstance(content[key], dict | list) and content[key]:
            yield from _places(content[key])


def in_array(chance: Chance, directory: Path) -> str:
    """Damage an array of a dataset; now and then its digest in the manifest then agrees with it."""
    import hashlib

    import numpy as np

    file = chance.choice(sorted(directory.glob("*.npy")))
    array = np.load(file)
    how = chance.choice(("raw", "labels", "shape", "dtype", "object", "huge", "factors"))
    if how == "raw":
        told = raw(chance, file)
    else:
        told = how
        if how == "labels":
            file = directory / "test-labels.npy"
            array = np.full_like(np.load(file), chance.choice((-1, 10, 10**9)))
        elif how == "factors":
            file = directory / "train-factors.npy"
            array = np.full_like(np.load(file), chance.choice((np.nan, -1, 0)))
        elif how == "shape":
            array = array[: len(array) // 2]
        elif how == "dtype":
            array = array.astype(np.float64)
        elif how == "object":
            array = np.array([{"a": 1}], dtype=object)
        np.save(file, array, allow_pickle=True)
        if how == "huge":
            content = file.read_bytes()
            file.write_bytes(content.replace(b"'shape': (", b"'shape': (9999999999999, ", 1))
    if file.is_file() and chance.random() < 0.7:
        manifest = directory / "manifest.json"
        content_of = json.loads(manifest.read_text())
        content_of["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(content_of))
    return f"{file.name}: {told}"


NETWORKS = (
    "def make(:", "raise RuntimeError('no')", "import sys\nsys.exit(3)", "def make():\n    return 3", "make = 3",
    "def make(x):\n    return x", "def make():\n    1 / 0", "",
    "import nothing_of_this_name", "def make():\n    return make()", "from torch import nn\nmake = nn.Module",
    "from torch import nn\ndef make():\n    return nn.Linear(3, 3)", "\xff\xfe",
    "from torch import nn\ndef make():\n    return nn.Conv2d(7, 2, 3)",
    "class E(Exception):\n    def __str__(self): raise ValueError\ndef make():\n    raise E",
    "def make():\n    raise ValueError('x' * 100000)", "def make():\n    raise ValueError('\\x1b[31m')",
)  # fmt: skip


def in_python(chance: Chance, file: Path) -> str:
    """Put a module in the file's place whose factory gives no network."""
    text = chance.choice(NETWORKS)
    file.write_bytes(text.encode("latin-1"))
    return repr(text[:50])


Damage = Callable[[Chance, Path], str]

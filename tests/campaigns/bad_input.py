"""Bad invocations by the hundred: no traceback, nothing slow, no long message, the right exit code, nothing changed.

``python -m tests.campaigns.bad_input --count 1000 --seed 0``
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns import damage
from tests.campaigns.forked import Ended, invoke, rehearse, warm
from tests.campaigns.standing import Standing, changed, digests, stand_up

NAME = "bad_input"
SLOW = 20.0
"""Seconds of processor time that an invocation may take."""
LONGEST = 400
"""Characters of a line on stderr."""


@dataclass(frozen=True)
class Case:
    """One bad invocation.

    Attributes
    ----------
    arguments
        The command line.
    told
        What is bad about it.
    must_fail
        Whether it is known to be bad: the exit code is then 1 or 2.
    """

    arguments: tuple[str, ...]
    told: str
    must_fail: bool


Build = Callable[[random.Random, Standing, Path], Case]

NUMBERS = ("x", "1.5.2", "", "nan,", "--", "1e", "0x", "one", "1 2")
LISTS = (
    "",
    ",",
    "0",
    "-1",
    "nan",
    "inf",
    "a,b",
    "1:0.5:3",
    "1:2",
    "1:2:3:4",
    "0.5:1:x",
    "1," * 3000,
    "9" * 5000,
)
NAMES = (
    "nothing",
    "",
    "../..",
    "\x1b[31mred",
    "x" * 5000,
    "💥",
    "=1+1",
    "<b>",
    "[/x]",
    "{0}",
    "%s",
    "cnn ",
    "CNN!",
)
PATHS = (
    "missing",
    "missing/deeper",
    "{root}/net.py/below",
    "x" * 300,
    "x/" * 2500,
    "/dev/null",
    "/proc/self/mem",
)
ASSIGNMENTS = (
    "x", "=", "model", "model.=1", "model.nothing=1", "training.lr=", "training.lr=nan", "training.epochs=-1",
    "training.epochs=" + "9" * 5000, "training.milestones=[5,1]", "training.lr=[" * 50, "other.x=1",
    "training.lr={a: b}",
    "training.seed=1e400", "training.optimizer=adagrad", "measure.x=1", "model.widths=0", "training.device=gpu",
)  # fmt: skip


def _base(which: str, at: Standing, here: Path) -> list[str]:
    """Return a command line that works, and quickly."""
    twin = ["--data", str(at.twin), "--images", "4", "--factors", "1,0.7", "--threads", "1", "-q"]
    small = ["--epochs", "1", "--threads", "1", "--set", "model.widths=[2,2,2,2]", "-q"]
    sizes = ["--sizes", "40", "10", "10", "--out", str(here / "data"), "-q"]
    data = ["--data", str(at.root / "data"), "--out", str(here / "swept")]
    return {
        "make-data": ["make-data", "digits-scale", *sizes],
        "train": ["train", "cnn", "--data", str(at.data), "--out", str(here / "runs"), *small],
        "equivariance": ["equivariance", "cnn", *twin, "--save", str(here / "results")],
        "compare": ["compare", str(at.run), str(at.result)],
        "report": ["report", str(at.swept), "-o", str(here / "r.html")],
        "sweep": ["sweep", str(at.sweep), "--dry-run", *data],
        "models": ["models", "cnn"],
    }[which]


OPTIONS: dict[str, dict[str, Sequence[str]]] = {
    "make-data": {
        "--realisations": ("x", "1-", "5-1", "1,1", "-1", "9" * 40, "0-99999"), "--jobs": NUMBERS,
        "--image-size": NUMBERS,
        "--factors": ("x", "1"), "--source": PATHS, "--preview": ("x.txt", "x", "{root}"), "--nothing": ("1",),
    },
    "train": {
        "--set": ASSIGNMENTS, "--config": PATHS, "--data": PATHS, "--epochs": (*NUMBERS, "-1", "0"),
        "--lr": ("x", "nan", "-1", "inf"), "--augment": NAMES, "--device": NAMES, "--precision": NAMES,
        "--track": NAMES,
        "--replicas": (*NUMBERS, "0", "-3"), "--batch": (*NUMBERS, "0"), "--devices": (*NUMBERS, "0"),
    },
    "equivariance": {
        "--factors": LISTS, "--taps": NAMES, "--metric": NAMES, "--background": NAMES, "--protocol": NAMES,
        "--images": (*NUMBERS, "0", "-1"), "--batch": (*NUMBERS, "0"), "--border": ("x", "nan", "-1", "inf"),
        "--data": PATHS, "--set": ASSIGNMENTS, "--format": NAMES, "--plot": ("x.txt", "x"), "--weights": PATHS,
        "--config": PATHS, "--device": NAMES, "--per": NAMES, "--attribute": NAMES,
    },
    "compare": {
        "--by": NAMES[:5], "--sort": NAMES, "--format": NAMES, "--factors": LISTS, "--tap": NAMES, "--rows": NAMES[2:6],
        "--columns": NAMES[2:6], "--value": NAMES[2:6], "--test": NAMES, "--ablate": NAMES[2:6],
    },
    "report": {"--by": NAMES[2:6], "--nothing": ("1",), "-o": ("x.txt", "x.pdf", "{root}/net.py/r.html", "")},
    "sweep": {
        "--only": ("x=1", "=", "model=nothing", "seed=9", "training.x=1", "[" * 200), "--limit": (*NUMBERS, "0"),
        "--set": ASSIGNMENTS, "--engine": NAMES, "--jobs": (*NUMBERS, "0"), "--threads": (*NUMBERS, "0", "9999"),
        "--stand-in": ("x", "digits=", "nothing=x", "digits=missing"), "--source": PATHS, "--format": NAMES,
        "--address": ("x", "host:0", "127.0.0.1:99999"),
    },
    "models": {"--format": NAMES, "--nothing": ("1",)},
}  # fmt: skip
MAYBE_FINE = {"/dev/null", "x" * 300}
"""Values that are not bad everywhere: an empty file is an empty configuration, a long name may be a new directory."""


def bad_option(chance: random.Random, at: Standing, here: Path) -> Case:
    """An option with a bad value."""
    command = chance.choice(list(OPTIONS))
    option = chance.choice(list(OPTIONS[command]))
    value = chance.choice(OPTIONS[command][option]).replace("{root}", str(at.root))
    arguments = [*_base(command, at, here), option, value]
    return Case(tuple(arguments), f"{option} {value[:40]!r}", value not in MAYBE_FINE)


def bad_name(chance: random.Random, at: Standing, here: Path) -> Case:
    """A command, network, dataset or path of a name that there is not."""
    command = chance.choice([*OPTIONS, "nothing", "doctor", "bench", "demo"])
    name = chance.choice([*NAMES[:3], *NAMES[3:], *PATHS]).replace("{root}", str(at.root))
    if command in ("nothing", "doctor", "bench", "demo"):
        return Case((command, "--nothing", name), f"{command} --nothing", True)
    base = _base(command, at, here)
    base[1] = name
    return Case(tuple(base), f"{command} {name[:40]!r}", True)


def _copy(of: Path, here: Path) -> Path:
    target = here / of.name
    if of.is_dir():
        shutil.copytree(of, target)
    else:
        shutil.copy(of, target)
    return target


def damaged_run(chance: random.Random, at: Standing, here: Path) -> Case:
    """A run, alone or with a good one, of which a file is damaged."""
    run = _copy(at.run, here)
    file = chance.choice(
        ("record.json", "equivariance.json", "model.safetensors", "config.yaml", "metrics.jsonl")
    )
    told = _damage_of(file)(chance, run / file)
    twin = ("--data", str(at.twin), "--images", "4", "--factors", "1,0.7", "--threads", "1", "-q")
    commands: list[tuple[str, ...]] = [
        ("compare", str(run)),
        (
            "compare",
            str(run),
            str(at.result),
            "--by",
            "model,epochs",
            "--format",
            chance.choice(("json", "csv", "table")),
        ),
        ("report", str(run), str(at.run), "-o", str(here / "r.html")),
        ("report", str(run), "-o", str(here / "r.md")),
        ("compare", str(here), "--rows", "model", "--columns", "seed"),
        ("equivariance", str(run), *twin, "--save", str(here / "results")),
        ("train", "--config", str(run / "config.yaml"), "--out", str(here / "again"), "-q"),
    ]
    return Case(chance.choice(commands), f"{file}: {told}", False)


def _damage_of(file: str) -> damage.Damage:
    return {".json": damage.in_json, ".yaml": damage.in_yaml}.get(Path(file).suffix, damage.raw)


def damaged_sweep(chance: random.Random, at: Standing, here: Path) -> Case:
    """A sweep's directory or file of which something is damaged."""
    swept, spec = _copy(at.swept, here), _copy(at.sweep, here)
    file = chance.choice(
        [swept / "sweep.json", spec, spec, *swept.rglob("record.json"), *swept.rglob("equivariance.json")]
    )
    told = _damage_of(file.name)(chance, file)
    commands: list[tuple[str, ...]] = [
        ("compare", str(swept)),
        ("report", str(swept), "-o", str(here / "r.html")),
        ("sweep", str(spec), "--dry-run", "--out", str(swept), "--data", str(at.root / "data")),
    ]
    return Case(commands[2] if file == spec else chance.choice(commands), f"{file.name}: {told}", False)


def damaged_dataset(chance: random.Random, at: Standing, here: Path) -> Case:
    """A dataset with a damaged manifest or array."""
    train = chance.random() < 0.5
    data = _copy(at.data if train else at.twin, here)
    if chance.random() < 0.5:
        told = f"manifest.json: {damage.in_json(chance, data / 'manifest.json')}"
    else:
        told = damage.in_array(chance, data)
    base = _base("train" if train else "equivariance", at, here)
    base[base.index("--data") + 1] = str(data)
    return Case(tuple(base), told, False)


def damaged_result(chance: random.Random, at: Standing, here: Path) -> Case:
    """A result of ``secli equivariance`` that is damaged."""
    result = _copy(at.result, here)
    told = damage.in_json(chance, result)
    more = (
        (),
        ("--curves",),
        ("--accuracy",),
        ("--factors", "0.5"),
        ("--format", "latex"),
        ("--format", "markdown"),
    )
    commands: list[tuple[str, ...]] = [
        ("compare", str(result), str(at.run), *chance.choice(more)),
        ("report", str(result), str(at.run), "-o", str(here / "r.html")),
        ("report", str(here), "-o", str(here / "r.md")),
    ]
    return Case(chance.choice(commands), f"{result.name}: {told}", False)


def damaged_config(chance: random.Random, at: Standing, here: Path) -> Case:
    """A YAML configuration that is damaged."""
    config = _copy(at.config, here)
    told = damage.in_yaml(chance, config)
    command = chance.choice(("train", "equivariance"))
    base = [*_base(command, at, here), "--config", str(config)]
    return Case(tuple(base), told, False)


def damaged_weights(chance: random.Random, at: Standing, here: Path) -> Case:
    """Weights, as safetensors or as a checkpoint, that are damaged or of another network."""
    weights = _copy(chance.choice((at.weights, at.checkpoint)), here)
    told = damage.raw(chance, weights)
    network = chance.choice(("cnn", f"{at.network}:make"))
    base = _base("equivariance", at, here)
    base[1] = network
    return Case((*base, "--weights", str(weights)), f"{weights.name}: {told}", False)


def damaged_network(chance: random.Random, at: Standing, here: Path) -> Case:
    """A file of Python whose factory gives no network."""
    network = _copy(at.network, here)
    told = damage.in_python(chance, network)
    base = _base("equivariance", at, here)
    base[1] = f"{network}:make"
    return Case(tuple(base), told, True)


def damaged_pictures(chance: random.Random, at: Standing, here: Path) -> Case:
    """A folder of pictures, one of which is damaged."""
    pictures = _copy(at.pictures, here)
    told = damage.raw(chance, chance.choice(sorted(pictures.rglob("*.png"))))
    if chance.random() < 0.5:
        out = ("--out", str(here / "data"), "-q")
        return Case(("make-data", "folder-scale", "--source", str(pictures), *out), told, False)
    base = _base("equivariance", at, here)
    base[base.index("--data") + 1] = str(pictures)
    return Case(tuple(base), told, False)


KINDS: tuple[tuple[Build, int], ...] = (
    (bad_option, 8), (bad_name, 3), (damaged_run, 6), (damaged_sweep, 4), (damaged_dataset, 4), (damaged_result, 3),
    (damaged_config, 3), (damaged_weights, 2), (damaged_network, 2), (damaged_pictures, 1),
)  # fmt: skip


def problems(case: Case, ended: Ended, gone: Sequence[str]) -> list[str]:
    """Return what is wrong with the way in which an invocation ended; nothing where it is as promised."""
    told = ended.stderr.splitlines()
    found = []
    if "Traceback (most recent call last)" in ended.stderr or ended.code == 70:
        found.append("traceback")
    if ended.hung or ended.worked > SLOW:
        found.append(f"{ended.worked:.0f} s of work in {ended.seconds:.0f} s")
    if longest := [line for line in told if len(line) > LONGEST]:
        found.append(f"a line of {len(longest[0])} characters")
    if ended.code not in ((1, 2) if case.must_fail else (0, 1, 2)):
        found.append(f"exit code {ended.code}")
    if ended.code in (1, 2) and sum(line.startswith("error:") for line in told) != 1:
        found.append("no line that says why")
    if any(character < " " and character not in "\n\r\t" for character in ended.stdout + ended.stderr):
        found.append("a control character is printed")
    if gone:
        found.append(f"changed: {gone[0]}")
    return found


def campaign(
    count: int, seed: int, scratch: Path, at: Standing, verbose: bool = False
) -> tuple[int, list[str]]:
    """Try so many invocations; return how many survived, and a line on each that did not."""
    (scratch / "rehearsal").mkdir()
    for command in OPTIONS:
        rehearse(_base(command, at, scratch / "rehearsal"), scratch / "rehearsal")
    before = digests(at.root)
    chance = random.Random(seed)
    lost = []
    for number in range(count):
        here = scratch / f"{number}"
        here.mkdir()
        (build,) = chance.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])
        case = build(chance, at, here)
        given = digests(here)
        ended = invoke(case.arguments, here)
        wrong = problems(case, ended, [*changed(before, digests(at.root)), *changed(given, digests(here))])
        if wrong:
            command = " ".join(case.arguments)[:300].encode("unicode_escape").decode()
            lost.append(f"{number}: {'; '.join(wrong)}: {case.told}: secli {command}")
            if verbose:
                sys.stdout.write(f"{lost[-1]}\n    {ended.stderr[-1500:]!r}\n")
                sys.stdout.flush()
        shutil.rmtree(here, ignore_errors=True)
    return count - len(lost), lost


def main(argv: Sequence[str]) -> int:
    """Run the campaign and print its result; 1 when something was lost."""
    parser = argparse.ArgumentParser(prog=f"tests.campaigns.{NAME}")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print what each lost one wrote")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="secli-campaign-") as scratch:
        warm()
        at = stand_up(Path(scratch) / "standing")
        survived, lost = campaign(given.count, given.seed, Path(scratch), at, given.verbose)
    for line in lost if not given.verbose else ():
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{NAME}: tried {given.count}, survived {survived}, lost {len(lost)}\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

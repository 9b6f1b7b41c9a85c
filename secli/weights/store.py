"""Folders of trained networks: put into a directory, fetched from elsewhere, found again, verified before use."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from secli.errors import InputError
from secli.provenance import sha256_file
from secli.records.kept import KeptRun, copy_kept, read_kept
from secli.sources.files import cache_directory
from secli.storage.disk_space import check_room, check_writable, naming
from secli.storage.leftovers import owned, tidy
from secli.storage.locks import in_turn
from secli.storage.writing import replace_folder, sync_folder, sync_tree, write_bytes, write_text
from secli.weights.card import card
from secli.weights.hub import HUB, HubPlace
from secli.weights.index import (
    CARD_FILE,
    FILES,
    INDEX_FILE,
    WEIGHTS_FILE,
    Index,
    IndexedFile,
    TrainedNetwork,
    plain_name,
    read_index,
    write_index,
)
from secli.weights.places import Place, copy_verified, index_of

SHIPPED = Path(__file__).parent
"""The networks that come with secli."""
MOST_SHIPPED = 14_000_000
"""Bytes that they may have together."""


def fetched() -> Path:
    """Return the directory that keeps networks which were fetched."""
    return cache_directory() / "weights"


def known() -> list[tuple[Path, TrainedNetwork]]:
    """Return the networks at hand, with the directory of each: those that ship, then those that were fetched.

    Raises
    ------
    InputError
        When an index is damaged.
    """
    found: dict[str, tuple[Path, TrainedNetwork]] = {}
    for home in (SHIPPED, fetched()):
        for network in read_index(home).networks:
            found.setdefault(network.name, (home, network))
    return list(found.values())


def published_run(model: str) -> Path:
    """Return the verified folder of a model's trained network: one that ships, else the first that was fetched.

    Raises
    ------
    InputError
        When there is none (those of other models are named), or a file is not what the index says.
    """
    here = known()
    mine = [(home, network) for home, network in here if network.model == model]
    if not mine:
        others = ", ".join(sorted({network.model for _, network in here}))
        some = f"published weights at hand are of {others}" if others else "none are at hand of any network"
        raise InputError(f"--weights published: {model} has none; {some} ('secli weights fetch' brings more)")
    home, network = min(
        mine, key=lambda one: (one[0] != SHIPPED, one[1].realisation, one[1].seed, one[1].name)
    )
    verify(home / network.name, network)
    return home / network.name


def verify(folder: Path, network: TrainedNetwork) -> KeptRun:
    """Check every file of a network's folder against the index, and that its records tell of that network.

    Raises
    ------
    InputError
        Naming the file that is missing, damaged or of something else.
    """
    for name, file in network.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise InputError(f"{path}: missing; fetch {network.name} again")
        if path.stat().st_size != file.size or sha256_file(path) != file.sha256:
            raise InputError(f"{path}: damaged: not the file of the index; fetch {network.name} again")
    kept = read_kept(folder)
    says = (kept.record.model.name, kept.record.data.name, kept.record.data.realisation)
    if says != (network.model, network.dataset, network.realisation):
        raise InputError(f"{folder}: its record is of another network than the index says")
    return kept


def fetch(place: Place, name: str, pinned: str | None = None, into: Path | None = None) -> Path:
    """Copy a network from a place into a directory (default: the cache), verified; it is there whole or not at all.

    One that is there already, with the files of the index, is left as it is.

    Raises
    ------
    InputError
        When a place elsewhere is not pinned, has no such network, or its files do not fit together.
    SecliError
        When a download fails or gives other bytes, or the disk is full.
    """
    if pinned is None and not place.here:
        _, digest = index_of(place)
        raise InputError(f"--from {place.text}: pin its index by --sha256; today's is {digest}")
    index, _ = index_of(place, pinned)
    try:
        network = index[name]
    except InputError as error:
        raise InputError(f"--from {place.text}: {error}") from None
    home = into or fetched()
    check_writable(home)
    with in_turn(home):
        folder = home / name
        before = {other.name: other for other in read_index(home).networks}.get(name)
        if before == network and _stands(folder, network):
            return folder
        check_room(home, network.size, max(file.size for file in network.files.values()))
        with _fresh(folder) as fresh:
            for file, told in network.files.items():
                copy_verified(place, f"{name}/{file}", fresh / file, told.size, told.sha256)
            verify(fresh, network)
        write_index(home, read_index(home).with_network(network))
    return folder


def _stands(folder: Path, network: TrainedNetwork) -> bool:
    try:
        verify(folder, network)
    except InputError:
        return False
    return True


@contextlib.contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """Yield a folder that takes another's place when the body ends, and is gone when it fails."""
    tidy(folder.parent)
    with owned(folder) as temporary, naming(folder, temporary):
        temporary.mkdir()
        yield temporary
        if folder.exists():
            replace_folder(temporary, folder)
        else:
            sync_tree(temporary)
            temporary.rename(folder)
            sync_folder(folder.parent)


def name_of(kept: KeptRun) -> str:
    """Return what a network is called unless the user says otherwise: its model, its data, the realisation."""
    record = kept.record
    seed = int(record.training["seed"])
    parts = [
        record.model.name,
        record.data.name,
        f"r{record.data.realisation}",
        *([f"s{seed}"] if seed else []),
    ]
    return "-".join(parts)


def push(run: Path, to: str, name: str | None = None, force: bool = False) -> tuple[TrainedNetwork, str]:
    """Put a finished run's network into a directory or onto the hub; return its entry and the sha256 of the index.

    Raises
    ------
    InputError
        When the run is not finished, or its name cannot be used or is taken by another network.
    SecliError
        When the upload fails, or the disk is full.
    """
    kept = read_kept(run)
    try:
        called = plain_name(name or name_of(kept))
    except ValueError as error:
        raise InputError(f"--name {name or name_of(kept)}: {error}") from None
    if to.startswith(HUB):
        return _push_to_hub(run, HubPlace(to), called, force)
    if "://" in to:
        raise InputError(f"--to {to}: only a directory or {HUB}OWNER/NAME can be pushed to")
    home = Path(to)
    check_writable(home)
    with in_turn(home), _fresh(home / called) as fresh:
        network = _filled(run, fresh, called)
        index = _with(read_index(home), network, force, to)
        if home.resolve() == SHIPPED and sum(one.size for one in index.networks) > MOST_SHIPPED:
            raise InputError(f"--to {to}: more than {MOST_SHIPPED // 10**6} MB would ship with secli")
    return network, write_index(home, index)


def _push_to_hub(run: Path, hub: HubPlace, name: str, force: bool) -> tuple[TrainedNetwork, str]:
    hub.make()
    before = index_of(hub)[0] if hub.has(INDEX_FILE) else Index()
    with tempfile.TemporaryDirectory(prefix="secli-push-") as scratch:
        folder = Path(scratch, name)
        folder.mkdir()
        network = _filled(run, folder, name)
        digest = write_index(Path(scratch), _with(before, network, force, hub.text))
        hub.upload(Path(scratch), f"Add {name}")
    return network, digest


def _with(index: Index, network: TrainedNetwork, force: bool, where: str) -> Index:
    before = {other.name: other for other in index.networks}.get(network.name)
    if before is not None and before != network and not force:
        raise InputError(
            f"--to {where}: another network is called {network.name} there; add --force or --name"
        )
    return index.with_network(network)


def _filled(run: Path, folder: Path, name: str) -> TrainedNetwork:
    """Fill a network's folder from its run and return its entry of the index."""
    kept = copy_kept(run, folder)
    write_bytes(folder / WEIGHTS_FILE, (run / WEIGHTS_FILE).read_bytes())
    write_text(folder / CARD_FILE, card(name, kept))
    record, results = kept.record, kept.record.results
    assert results is not None  # read_kept refuses others
    files = [file for file in FILES if (folder / file).exists()]
    return TrainedNetwork(
        name=name,
        model=record.model.name,
        dataset=record.data.name,
        realisation=record.data.realisation,
        seed=int(record.training["seed"]),
        test_error=results.test_error,
        files={
            file: IndexedFile(sha256=sha256_file(folder / file), size=(folder / file).stat().st_size)
            for file in files
        },
    )

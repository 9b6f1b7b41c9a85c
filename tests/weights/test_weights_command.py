"""``secli weights`` and ``--weights published``: pushed, listed, fetched, verified, measured; bad input in one line."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import secli
from secli.cli.app import app
from secli.weights import places, store
from secli.weights.index import FILES, INDEX_FILE, read_index
from tests.weights.conftest import NAME


def weights(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["weights", *arguments])


def refused(result: Result, *texts: str, code: int = 2) -> None:
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for text in texts:
        assert text in result.stderr


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def fetch(place: Path | str, *more: str) -> Result:
    return weights("fetch", NAME, "--from", str(place), *more)


@pytest.fixture
def served(place: Path) -> Iterator[str]:
    """The directory on the loopback interface."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_run_becomes_a_folder_with_a_card_that_names_no_path(place: Path, run: Path, desk: Path) -> None:
    folder = place / NAME
    assert {file.name for file in folder.iterdir()} == set(FILES)
    assert (folder / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    for file in FILES[1:]:
        assert str(desk) not in (folder / file).read_text(), file
    record = json.loads((run / "record.json").read_text())
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: secli\n")
    assert f"# {NAME}" in card
    assert f"| test error | {100 * record['results']['test_error']:.2f} % of 30 images |" in card
    assert "| tap | s = 1 | s = 0.7 |" in card


@pytest.fixture
def nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the networks that come with the package."""
    empty = tmp_path / "shipped"
    empty.mkdir()
    index = json.loads((store.SHIPPED / INDEX_FILE).read_text(encoding="utf-8"))
    (empty / INDEX_FILE).write_text(json.dumps({**index, "networks": []}), encoding="utf-8")
    monkeypatch.setattr(store, "SHIPPED", empty.resolve())


@pytest.mark.usefixtures("nothing_shipped")
def test_networks_are_listed_with_size_and_sha256(place: Path) -> None:
    listed = weights("list", "--from", str(place), "--format", "json")
    assert listed.exit_code == 0, listed.stderr
    assert f"--sha256 {sha256(place / INDEX_FILE)}" in listed.stderr
    (row,) = json.loads(listed.stdout)
    assert (row["name"], row["model"], row["realisation"]) == (NAME, "cnn", 0)
    assert row["sha256"] == sha256(place / NAME / "model.safetensors")
    assert row["size"] == sum(file.stat().st_size for file in (place / NAME).iterdir())
    table = weights("list", "--from", str(place)).stdout
    assert f"{row['size'] / 1e6:.2f}  {row['sha256'][:16]}" in table
    assert f"{100 * row['test_error']:.2f}" in table
    assert weights("list", "-q").stdout.strip() == "no trained network at hand"
    assert fetch(place, "-q").exit_code == 0
    assert NAME in weights("list").stdout


def test_a_fetched_network_is_measured_by_its_models_name(
    place: Path, cache: Path, run: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch(place)
    assert fetched.exit_code == 0, fetched.stderr
    folder = Path(fetched.stdout.strip())
    assert folder == cache / "weights" / NAME
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.chdir(desk)
    told = ["--images", "4", "--factors", "0.7", "--threads", "1", "-q", "--format", "json"]
    result = CliRunner().invoke(app, ["equivariance", "cnn", "--weights", "published", *told])
    assert result.exit_code == 0, result.stderr
    own = CliRunner().invoke(app, ["equivariance", str(run), *told, "--save", "saved"])
    assert own.exit_code == 0, own.stderr
    record, same = json.loads(result.stdout), json.loads(own.stdout)
    assert [row["mean"] for row in record["rows"]] == [row["mean"] for row in same["rows"]]
    assert record["weights"] == f"published {NAME}"
    assert record["trained"] is True
    assert record["run"] is None
    assert record["model"]["options"]["weights_sha256"] == sha256(folder / "model.safetensors")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_python_loads_it_too(place: Path, run: Path) -> None:
    assert fetch(place, "-q").exit_code == 0
    published, own = secli.load_model("cnn", weights="published"), secli.load_model(run)
    assert isinstance(published, nn.Module)
    assert isinstance(own, nn.Module)
    for name, value in own.state_dict().items():
        assert torch.equal(published.state_dict()[name], value)


def test_a_folder_is_a_run_for_every_command(place: Path) -> None:
    result = CliRunner().invoke(app, ["compare", str(place), "--format", "json"])
    assert result.exit_code == 0, result.stderr
    assert [row["model"] for row in json.loads(result.stdout)] == ["cnn"]


def test_data_by_name_needs_no_network_and_no_directory(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch(place, "-q").exit_code == 0
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    told = ["--images", "4", "--factors", "0.7", "--threads", "1", "-q"]
    result = CliRunner().invoke(
        app, ["equivariance", "cnn", "--weights", "published", "--data", "digits", *told]
    )
    assert result.exit_code == 0, result.stderr
    assert "0.7" in result.stdout
    assert list(Path().iterdir()) == []
    refused(
        CliRunner().invoke(app, ["equivariance", "cnn", "--data", "mnist", *told]),
        "--data mnist: no such directory; make it with 'secli make-data mnist'",
    )


def test_what_ships_comes_first(place: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHIPPED", place.resolve())
    assert store.published_run("cnn") == place.resolve() / NAME
    assert fetch(place, "-q").exit_code == 0
    assert store.published_run("cnn") == place.resolve() / NAME
    monkeypatch.setattr(store, "MOST_SHIPPED", 1)
    refused(weights("push", str(run), "--to", str(place), "--name", "more"), "would ship with secli")
    assert not (place / "more").exists()
    assert [one.name for one in read_index(place).networks] == [NAME]


def test_a_web_place_is_pinned_by_the_sha256_of_its_index(served: str, place: Path, cache: Path) -> None:
    digest = sha256(place / INDEX_FILE)
    refused(fetch(served), "pin its index by --sha256", digest)
    refused(fetch(served, "--sha256", "0" * 64), f"has sha256 {digest}")
    assert not (cache / "weights").exists()
    result = fetch(served, "--sha256", digest, "-q")
    assert result.exit_code == 0, result.stderr
    assert sha256(cache / "weights" / NAME / "model.safetensors") == sha256(
        place / NAME / "model.safetensors"
    )
    assert fetch(served, "--sha256", digest, "-q").exit_code == 0


def test_fetching_again_mends_a_damaged_network(place: Path, cache: Path) -> None:
    assert fetch(place, "-q").exit_code == 0
    file = cache / "weights" / NAME / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    measured = CliRunner().invoke(app, ["equivariance", "cnn", "--weights", "published", "--data", "digits"])
    refused(measured, f"{file}: damaged: not the file of the index; fetch {NAME} again")
    assert fetch(place, "-q").exit_code == 0
    assert file.read_bytes() == whole


Damage = Callable[[Path], Any]


def edit(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Return what changes the entry of the network in the index."""

    def damage(place: Path) -> None:
        content = json.loads((place / INDEX_FILE).read_text())
        change(content["networks"][0])
        (place / INDEX_FILE).write_text(json.dumps(content))

    return damage


def rewrite(change: Callable[[bytes], bytes]) -> Damage:
    """Return what changes the weights in the place, behind the index's back."""

    def damage(place: Path) -> None:
        file = place / NAME / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return damage


@pytest.mark.parametrize(
    ("damage", "told", "code"),
    [
        (rewrite(lambda content: content[:-1] + b"\x07"), "has another sha256 than its index says", 1),
        (rewrite(lambda content: content[:-1]), "is shorter than its index says", 1),
        (rewrite(lambda content: content + b"x"), "is longer than its index says", 1),
        (lambda place: (place / NAME / "config.yaml").unlink(), "config.yaml: no such file", 2),
        (lambda place: (place / INDEX_FILE).unlink(), "index.json: no such file", 2),
        (lambda place: (place / INDEX_FILE).write_text('{"networks": ['), "not an index of networks", 2),
        (lambda place: (place / INDEX_FILE).write_bytes(b" " * 1_100_000), "no index", 2),
        (lambda place: (place / INDEX_FILE).write_text("[" * 100_000), "not an index of networks", 2),
        (edit(lambda one: one.update(name="../../etc")), "a name is of letters, digits", 2),
        (edit(lambda one: one.update(name=".hidden")), "begins with a letter or digit", 2),
        (
            edit(lambda one: one["files"].update({"../x": {"sha256": "0" * 64, "size": 1}})),
            "has a file '../x'",
            2,
        ),
        (
            edit(lambda one: one["files"].update({"w.pkl": {"sha256": "0" * 64, "size": 1}})),
            "has a file 'w.pkl'",
            2,
        ),
        (edit(lambda one: one["files"].pop("model.safetensors")), "lacks 'model.safetensors'", 2),
        (edit(lambda one: one["files"]["record.json"].update(sha256="beef")), "sha256", 2),
        (edit(lambda one: one["files"]["record.json"].update(size=-1)), "size", 2),
        (edit(lambda one: one.update(trust="me")), "unknown key", 2),
        (
            edit(lambda one: one.update(realisation=5)),
            "its record is of another network than the index says",
            2,
        ),
        (edit(lambda one: one.update(name="another")), f"no network '{NAME}' there", 2),
    ],
)
def test_a_bad_place_leaves_nothing_behind(
    place: Path, cache: Path, damage: Damage, told: str, code: int
) -> None:
    damage(place)
    refused(fetch(place), told, code=code)
    left = [file for file in cache.rglob("*") if file.is_file()] if cache.exists() else []
    assert left == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fetch", "x", "--from", "http://example.org/x"], "only https addresses are taken"),
        (["fetch", "x", "--from", "ftp://example.org/x"], "only https addresses are taken"),
        (["fetch", "x", "--from", "file:///etc"], "only https addresses are taken"),
        (["fetch", "x", "--from", "https://"], "only https addresses are taken"),
        (["fetch", "x", "--from", "https://[::1"], "only https addresses are taken"),
        (["fetch", "x", "--from", "nowhere"], "--from nowhere: no such directory"),
        (["fetch", "x", "--from", "hub:one"], "write hub:OWNER/NAME"),
        (["fetch", "x", "--from", "hub:../.."], "write hub:OWNER/NAME"),
        (["push", "nowhere", "--to", "x"], "nowhere"),
        (["list", "--from", "nowhere"], "--from nowhere: no such directory"),
    ],
)
def test_bad_places_are_refused(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(weights(*arguments), told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("list", ["--from"]),
        ("fetch", ["--from", "--sha256", "--out"]),
        ("push", ["--to", "--name", "--force"]),
    ],
)
def test_help_names_the_options(command: str, options: list[str]) -> None:
    result = CliRunner().invoke(app, ["weights", command, "--help"], env={"COLUMNS": "160"})
    assert result.exit_code == 0
    for option in options:
        assert option in result.stdout
    assert option_free(weights(command, "--nonsense"))


def option_free(result: Result) -> bool:
    """Whether an option that is not there was refused in one line."""
    return result.exit_code == 2 and result.stderr.count("\n") == 1 and "--nonsense" in result.stderr


def test_a_wrong_sha256_is_refused_at_the_option(place: Path) -> None:
    refused(fetch(place, "--sha256", "abc"), "abc is no sha256")


def test_pushing_refuses_names_places_and_runs(place: Path, run: Path, tmp_path: Path) -> None:
    for name in ("a/b", "..", "-x", "é", " "):
        refused(weights("push", str(run), "--to", str(place), f"--name={name}"), "--name")
    refused(weights("push", str(run), "--to", "https://example.org/x"), "only a directory or hub:")
    other = tmp_path / "other"
    other.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    assert weights("push", str(other), "--to", str(place), "--name", NAME).exit_code == 0  # the same network
    (other / "equivariance.json").unlink()
    refused(
        weights("push", str(other), "--to", str(place), "--name", NAME), f"another network is called {NAME}"
    )
    assert (place / NAME / "equivariance.json").exists()
    assert weights("push", str(other), "--to", str(place), "--name", NAME, "--force").exit_code == 0
    assert not (place / NAME / "equivariance.json").exists()
    (other / "model.safetensors").unlink()
    refused(weights("push", str(other), "--to", str(place)), "its record stands here without the weights")


def test_a_full_disk_is_one_line_and_leaves_nothing(
    place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> int:
        return 10

    monkeypatch.setattr("secli.storage.disk_space._free", full)
    refused(fetch(place), "no space left on device", code=1)
    assert list(cache.rglob("model.safetensors")) == []


@pytest.mark.usefixtures("nothing_shipped")
def test_a_model_without_published_weights_names_those_that_have_some(place: Path) -> None:
    asked = ["equivariance", "dss_v1", "--weights", "published", "--data", "digits"]
    refused(CliRunner().invoke(app, asked), "--weights published: dss_v1 has none; none are at hand")
    assert fetch(place, "-q").exit_code == 0
    refused(CliRunner().invoke(app, asked), "dss_v1 has none; published weights at hand are of cnn")
    options = ["equivariance", "cnn", "--weights", "published", "--data", "digits"]
    refused(CliRunner().invoke(app, [*options, "--set", "model.mean=0.5"]), "leave --set out")
    refused(CliRunner().invoke(app, [*options, "--state", "ema"]), "--state ema")


class FakeHub:
    """What is used of huggingface_hub, on a directory in place of the network."""

    def __init__(self, home: Path) -> None:
        self.home, self.revisions = home, list[str | None]()

    def create_repo(self, repo_id: str, exist_ok: bool) -> None:
        assert exist_ok
        (self.home / repo_id).mkdir(parents=True, exist_ok=True)

    def file_exists(self, repo_id: str, filename: str) -> bool:
        return (self.home / repo_id / filename).is_file()

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str | None, local_dir: str) -> str:
        self.revisions.append(revision)
        source, target = self.home / repo_id / filename, Path(local_dir, filename)
        if not source.is_file():
            raise RuntimeError(f"404 Client Error.\n\nEntry Not Found: {filename}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        return str(target)

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        assert commit_message
        for file in Path(folder_path).rglob("*"):
            if file.is_file():
                target = self.home / repo_id / file.relative_to(folder_path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    functions = {name: getattr(fake, name) for name in dir(fake) if not name.startswith("_")}
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(**functions))
    return fake


def test_the_hub_is_pushed_to_and_fetched_from(hub: FakeHub, run: Path, cache: Path) -> None:
    for name in (NAME, "another"):  # the second joins the first
        pushed = weights("push", str(run), "--to", "hub:me/nets", "--name", name)
        assert pushed.exit_code == 0, pushed.stderr
    digest = sha256(hub.home / "me" / "nets" / INDEX_FILE)
    assert f"--sha256 {digest}" in pushed.stderr
    listed = weights("list", "--from", "hub:me/nets", "--format", "json")
    assert [row["name"] for row in json.loads(listed.stdout)] == ["another", NAME]
    result = fetch("hub:me/nets@abc123", "--sha256", digest, "-q")
    assert result.exit_code == 0, result.stderr
    assert hub.revisions[-1] == "abc123"
    assert (cache / "weights" / NAME / "model.safetensors").is_file()
    refused(weights("push", str(run), "--to", "hub:me/nets@abc123"), "a revision cannot be written to")
    refused(
        weights("list", "--from", "hub:me/none"),
        "hub:me/none: cannot download index.json (404 Client Error. Entry Not Found: index.json)",
        code=1,
    )


def test_without_the_hubs_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(weights("list", "--from", "hub:me/nets"), "pip install 'secli[hub]'")


def test_a_redirect_to_plain_http_is_refused() -> None:
    with pytest.raises(secli.errors.InputError, match="only https addresses"):
        places._check_address("http://example.org/index.json", "https://example.org")
    places._check_address("https://example.org/index.json", "https://example.org")


def test_what_ships_is_whole_small_and_loads() -> None:
    """Every network below secli/weights, against its index; the whole is what a wheel can carry."""
    index = read_index(store.SHIPPED)
    assert (store.SHIPPED / INDEX_FILE).is_file()
    assert sum(network.size for network in index.networks) <= store.MOST_SHIPPED
    folders = {path.name for path in store.SHIPPED.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {network.name for network in index.networks}
    for network in index.networks:
        store.verify(store.SHIPPED / network.name, network)
        secli.load_model(store.SHIPPED / network.name)

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Invariant, Plane, ScaleSpace
from secli.errors import InputError, SecliError
from secli.external.field_text import parse_field, parse_fields
from secli.external.hooks import find_logits, matches_pattern
from secli.external.load import is_external, list_taps, load_external, suggested_input
from secli.models.contract import Model

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 7)
        self.unused = nn.Linear(1, 1)

    def forward(self, x):
        x = self.relu(self.conv(x))
        x = self.relu(self.down(x))
        return {"extra": x, "logits": self.head(x.mean((2, 3)))}

def net():
    return Net()

def wide(width):
    return Net()

def fails():
    raise KeyError("no width")

def nothing():
    return 3

def many():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(0))

built = Net()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a file of factories."""
    (tmp_path / "mine.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def tensor(features: dict[str, Any], tap: str) -> Tensor:
    found = features[tap]
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize(
    ("target", "external"),
    [
        ("torchvision:resnet18", True),
        ("timm:vit_tiny_patch16_224.augreg_in21k", True),
        ("package.module:net", True),
        ("nets/mine.py:net", True),
        ("mnist_cnn_28", False),
        ("runs/cnn/digits-r0-s0", False),
    ],
)
def test_what_is_external(target: str, external: bool) -> None:
    assert is_external(target) is external


def test_a_directory_is_a_run_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert not is_external(str(tmp_path / "a:b"))


def test_globs_stay_within_a_part_of_the_name() -> None:
    assert matches_pattern("blocks.3", "blocks.*")
    assert not matches_pattern("blocks.3.attn", "blocks.*")
    assert matches_pattern("blocks.3.attn.qkv", "**.qkv")
    assert matches_pattern("layer1", "layer[12]")
    assert matches_pattern("a.b.c", "**")


def test_a_factory_in_a_file(here: Path) -> None:
    model = load_external("mine.py:net", taps=["down", "conv"], input_shape=(3, 24, 32), seed=3)
    assert isinstance(model, Model)
    assert model.stages == []
    # in the order of the forward pass; the stride-2 cells lie at 2i
    assert model.taps == {"conv": Plane(1.0, None), "down": Plane(2.0, 0.0)}
    assert model.description["target"] == "mine.py:net"
    assert model.description["input"] == [3, 24, 32]
    images = torch.rand(4, 3, 24, 32)
    with torch.no_grad():
        features = model.features(images)
        assert list(features) == ["conv", "down", "logits"]
        # oracle: the same layers by hand; ReLU in place must not reach back into what was seen
        network: Any = model.network
        torch.testing.assert_close(features["conv"], network.conv(images))
        torch.testing.assert_close(features["down"], network.down(network.conv(images).relu()))
        assert (tensor(features, "conv") < 0).any()
        torch.testing.assert_close(model(images), features["logits"])
    assert model(images).shape == (4, 7)
    assert not model.training
    with torch.inference_mode():
        assert (tensor(model.features(images), "conv") < 0).any()


def test_seeds_decide_the_weights_and_leave_the_random_state(here: Path) -> None:
    state = torch.random.get_rng_state()
    one, two, other = (
        load_external("mine.py:net", taps=["conv"], input_shape=(3, 16, 16), seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [model.state_dict()["network.conv.weight"] for model in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_module_that_is_called_twice(here: Path) -> None:
    model = load_external("mine.py:net", taps=["relu@1", "relu"], input_shape=(3, 16, 16))
    assert list(model.taps) == ["relu@1", "relu"]
    assert model.taps["relu"] == Plane(2.0, 0.0)
    with torch.no_grad():
        features = model.features(torch.rand(2, 3, 16, 16))
    assert [tuple(tensor(features, tap).shape[1:]) for tap in model.taps] == [(8, 16, 16), (8, 8, 8)]


def test_default_taps_and_a_normalisation(here: Path) -> None:
    model = load_external("mine.py:net", taps=None, input_shape=(3, 16, 16), mean=[0.1, 0.2, 0.3], std=0.5)
    assert list(model.taps) == ["conv", "down", "relu", "logits"]
    assert model.taps["logits"] == Invariant()
    network: Any = model.network
    images = torch.rand(2, 3, 16, 16)
    normalised = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5
    with torch.no_grad():
        torch.testing.assert_close(model.features(images)["conv"], network.conv(normalised))
    assert model.description["std"] == [0.5, 0.5, 0.5]


def test_modules_of_the_current_directory(here: Path) -> None:
    (here / "mypackage_x").mkdir()
    (here / "mypackage_x" / "nets.py").write_text(
        "from torch import nn\nclass Tiny(nn.Conv2d):\n    def __init__(self): super().__init__(1, 2, 3)\n"
    )
    model = load_external("mypackage_x.nets:Tiny", taps=["logits"], input_shape=(1, 3, 3))
    assert model(torch.rand(5, 1, 3, 3)).shape == (5, 2)  # (N, 2, 1, 1) is one row of scores each


FAILURES = {
    "mine.py:nett": "unknown factory in 'mine.py:nett', 'nett'; did you mean 'net'",
    "other.py:net": "no such file: other.py",
    "mine.py:wide": "needs the argument 'width'",
    "mine.py:fails": r"mine\.py:\d+: KeyError: 'no width'",
    "mine.py:nothing": "returned int, not a torch.nn.Module",
    "mine.py:built": "a network that is built already",
    "mine.py:FACTORY.x": "unknown factory",
    "no_such_module_x:net": "no module named 'no_such_module_x'; for a file write",
    "torchvision:resnet19": "unknown torchvision model 'resnet19'; did you mean 'resnet1",
    "a b:net": "neither torchvision, timm, a Python module nor a .py file",
}


@pytest.mark.parametrize("target", FAILURES)
def test_a_wrong_target_is_one_line(target: str, here: Path) -> None:
    with pytest.raises(InputError, match=FAILURES[target]) as caught:
        load_external(target, taps=None, input_shape=(3, 16, 16))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def net(:", r"broken\.py:1: SyntaxError"),
        ("import no_such_module_y\n", r"broken\.py:1: ModuleNotFoundError"),
        ("\nraise SystemExit(4)", r"broken\.py:2: SystemExit: 4"),
    ],
)
def test_errors_in_a_file_name_file_and_line(code: str, message: str, here: Path) -> None:
    (here / "broken.py").write_text(code)
    with pytest.raises(InputError, match=message):
        load_external("broken.py:net", taps=None, input_shape=(3, 16, 16))
    assert not any(name.startswith("secli_user_") for name in sys.modules)


def call(here: Path, **options: Any) -> Any:
    return load_external("mine.py:net", **{"taps": ["conv"], "input_shape": (3, 16, 16), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": ["conw"]}, "--taps conw: no tap matches; did you mean 'conv'"),
        ({"taps": ["unused"]}, "--taps unused: the forward pass never calls this module"),
        ({"taps": ["unused", "block*"]}, "never calls this module"),
        ({"input_shape": None}, "give --input, for example 3x224x224"),
        ({"input_shape": (1, 16, 16)}, r"mine.py:net: fails on images of 1×16×16 \(mine.py:\d+: .*channels"),
        ({"mean": [0.1, 0.2]}, "--mean: 2 values for images of 3 channels"),
        ({"std": 0.0}, "--std: the values must be greater than 0"),
        ({"mean": float("nan")}, "--mean: the values must be finite"),
        ({"fields": ["conv=scale:1,2,4"]}, "a scale space of 3 levels is"),
        ({"fields": ["conv=tokens:4x4"]}, r"tokens 4×4 are \(N, 16, C\), not \(2, 8, 16, 16\)"),
        ({"fields": ["head=plane"], "taps": ["head"]}, "a plane is"),
        ({"fields": ["cnv=plane"]}, "--field cnv: no tap matches; did you mean 'conv'"),
        ({"weights": "DEFAULT"}, "--weights DEFAULT: no such file; published weights are known only"),
        ({"weights": "nowhere.pth"}, "--weights nowhere.pth: no such file"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, Any], message: str, here: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call(here, **options)
    assert "\n" not in str(caught.value)


def test_weights_from_a_file(here: Path) -> None:
    source = call(here, seed=5)
    torch.save({"state_dict": source.network.state_dict()}, "net.pth")
    model = call(here, seed=0, weights="net.pth")
    assert torch.equal(model.network.conv.weight, source.network.conv.weight)
    assert model.description["weights"] == "net.pth"
    assert len(model.description["weights_sha256"]) == 64


class Declared(nn.Module):
    """A network that meets the contract by itself, but for its stages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.taps = {"own": ScaleSpace((1.0, 2.0)), "logits": Invariant()}

    def features(self, images: Tensor) -> dict[str, Tensor]:
        levels = self.conv(images).unflatten(1, (2, 2))
        return {"own": levels, "logits": levels.mean((2, 3, 4))}

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)["logits"]


def test_a_network_with_taps_of_its_own_is_used_as_it_is(here: Path) -> None:
    (here / "theirs.py").write_text(f"from {__name__} import Declared\n")
    sys.modules[__name__].__dict__.setdefault("Declared", Declared)
    model = load_external("theirs.py:Declared", taps=None, input_shape=(1, 12, 12))
    assert model.taps == {"own": ScaleSpace((1.0, 2.0)), "logits": Invariant()}
    images = torch.rand(3, 1, 12, 12)
    with torch.no_grad():
        network: Any = model.network
        torch.testing.assert_close(model.features(images)["own"], network.features(images)["own"])
    assert [tap.name for tap in list_taps(model, (1, 12, 12))] == ["own", "logits"]
    assert list(load_external("theirs.py:Declared", taps=["o*"], input_shape=(1, 12, 12)).taps) == ["own"]
    with pytest.raises(InputError, match="declares the fields of its taps itself"):
        load_external("theirs.py:Declared", taps=None, fields=["own=plane"], input_shape=(1, 12, 12))


def test_list_taps(here: Path) -> None:
    model = call(here)
    listed = {tap.name: tap for tap in list_taps(model.network, (3, 16, 24))}
    assert list(listed) == ["conv", "relu@1", "down", "relu", "head", "extra", "output.logits"]
    assert listed["conv"].kind == "Conv2d"
    assert listed["conv"].shape == (8, 16, 24)
    assert listed["conv"].stride == (1.0, 1.0)
    assert listed["down"].stride == (2.0, 2.0)
    assert listed["down"].origin == (0.0, 0.0)
    assert listed["down"].radius is not None
    assert 1 < listed["down"].radius < 4
    assert listed["head"][2:] == ((7,), None, None, None)
    assert [tap.name for tap in list_taps(model, (3, 16, 24), taps=["relu*"])] == ["relu@1", "relu"]


OUTPUTS = """
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple
import torch
from torch import nn

@dataclass
class Found:
    maps: torch.Tensor
    logits: torch.Tensor

class Pair(NamedTuple):
    low: torch.Tensor
    high: torch.Tensor

class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.down = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        x = self.conv(x)
        y = self.down(x)
        return {
            "class": lambda: Found(x + 1, self.head(y.mean((2, 3)))),
            "dict": lambda: {"pyramid": [x.sigmoid(), y.sigmoid()], "down": y * 2, "same": y},
            "pair": lambda: Pair(x.sigmoid(), y.sigmoid()),
            "tuple": lambda: (self.head(y.mean((2, 3))), x.sigmoid()),
        }[self.kind]()

def dataclass_(): return Net("class")
def dict_(): return Net("dict")
def pair(): return Net("pair")
def tuple_(): return Net("tuple")
"""


@pytest.mark.parametrize(
    ("factory", "by_default", "strides"),
    [
        ("dataclass_", ["conv", "down", "maps", "logits"], {"maps": 1.0, "conv": 1.0}),
        (
            "dict_",
            ["conv", "down", "pyramid.0", "pyramid.1", "output.down"],
            {"down": 2.0, "pyramid.0": 1.0, "pyramid.1": 2.0, "output.down": 2.0},
        ),
        ("pair", ["conv", "down", "low", "high"], {"low": 1.0, "high": 2.0}),
        ("tuple_", ["conv", "down", "output.1", "logits"], {"output.1": 1.0}),
    ],
)
def test_keys_of_what_a_network_returns_are_taps(
    factory: str, by_default: list[str], strides: dict[str, float], here: Path
) -> None:
    (here / "outputs.py").write_text(OUTPUTS)
    target = f"outputs.py:{factory}"
    model = load_external(target, taps=None, input_shape=(1, 16, 16))
    assert list(model.taps) == by_default
    chosen = load_external(target, taps=list(strides), input_shape=(1, 16, 16))
    assert {tap: getattr(field, "stride", None) for tap, field in chosen.taps.items()} == strides
    listed = [tap.name for tap in list_taps(model, (1, 16, 16))]
    assert set(strides) <= set(listed)
    images = torch.rand(2, 1, 16, 16)
    network: Any = model.network
    with torch.no_grad():
        features = chosen.features(images)
        conv, down = network.conv(images), network.down(network.conv(images))
    expected = {
        **dict.fromkeys(("pyramid.0", "low", "output.1"), conv.sigmoid()),
        **dict.fromkeys(("pyramid.1", "high"), down.sigmoid()),
        "maps": conv + 1,
        "conv": conv,
        "down": down,
        "output.down": 2 * down,
    }
    for tap in strides:
        torch.testing.assert_close(features[tap], expected[tap])


def test_the_images_that_the_usual_weights_were_made_for() -> None:
    assert suggested_input("torchvision:resnet18") == (3, 224, 224)
    assert suggested_input("torchvision:inception_v3") == (3, 299, 299)
    assert suggested_input("torchvision:fcos_resnet50_fpn") is None  # it takes images of any size
    assert suggested_input("mine.py:net") is None
    assert load_external("torchvision:squeezenet1_1", taps=["features.0"]).description["input"] == [
        3,
        224,
        224,
    ]


class Outputs:
    logits = torch.zeros(3, 5)


@pytest.mark.parametrize(
    ("output", "shape"),
    [
        (torch.zeros(3, 5), (3, 5)),
        ((torch.ones(3, 4), torch.zeros(3, 5)), (3, 4)),
        ({"features": torch.zeros(3, 9), "logits": torch.zeros(3, 5)}, (3, 5)),
        ({"out": torch.zeros(3, 5, 1, 1), "aux": torch.zeros(3, 2)}, (3, 5)),
        (Outputs(), (3, 5)),
    ],
)
def test_logits_are_found_in_whatever_is_returned(output: Any, shape: tuple[int, ...]) -> None:
    logits, reason = find_logits(output, 3)
    assert logits is not None
    assert tuple(logits.shape) == shape
    assert reason is None


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (None, "no tensor but NoneType"),
        ({"out": torch.zeros(3, 5, 8, 8)}, "3×5×8×8 for 3 images"),
        (torch.zeros(3), "3 for 3 images"),
        (torch.tensor(1.0), "a single number for 3 images"),
    ],
)
def test_no_logits_have_a_reason(output: Any, reason: str) -> None:
    logits, found = find_logits(output, 3)
    assert logits is None
    assert found is not None
    assert reason in str(found)


def test_a_network_without_logits_is_still_measured() -> None:
    model = load_external("torchvision:fcn_resnet50", taps=["backbone.relu"], input_shape=(3, 32, 32))
    assert model.logits_reason is not None
    assert list(model.taps) == ["backbone.relu"]
    with torch.no_grad():
        assert "logits" not in model.features(torch.rand(1, 3, 32, 32))
        with pytest.raises(SecliError, match="no logits: the network returns 1×21×32×32"):
            model(torch.rand(1, 3, 32, 32))


# published weights, from a server of our own


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTP server over an empty folder: its address and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0),
        lambda *args: Quiet(*args, directory=str(folder)),
    )
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def published(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's squeezenet1_1 with weights on our server; the folder that is served."""
    import torchvision.models as zoo
    from torchvision.transforms._presets import ImageClassification

    url, folder = server

    class Ours(zoo.WeightsEnum):  # type: ignore[misc]
        OURS_V1 = zoo.Weights(
            url=f"{url}/squeezenet.pth",
            transforms=lambda: ImageClassification(crop_size=48, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)),
            meta={"categories": ["a", "b", "c"]},
        )
        DEFAULT = OURS_V1

    monkeypatch.setattr(zoo, "get_model_weights", lambda _name: Ours)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return folder


def test_published_weights_bring_size_and_normalisation(published: Path, tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    network = squeezenet1_1(num_classes=3)
    torch.save(network.state_dict(), published / "squeezenet.pth")
    assert suggested_input("torchvision:squeezenet1_1", "DEFAULT") == (3, 48, 48)
    model = load_external("torchvision:squeezenet1_1", taps=["features.3"], weights="DEFAULT")
    assert model.description["input"] == [3, 48, 48]
    assert model.description["mean"] == [0.5, 0.4, 0.3]
    assert model.description["weights"] == "OURS_V1"
    assert torch.equal(
        model.state_dict()["network.features.0.weight"], network.state_dict()["features.0.weight"]
    )
    # the cache serves it now, also where nothing may be downloaded
    (published / "squeezenet.pth").unlink()
    load_external("torchvision:squeezenet1_1", taps=["features.3"], weights="OURS_V1", offline=True)
    grey = load_external(
        "torchvision:squeezenet1_1", taps=["features.3"], weights="OURS_V1", mean=0.0, std=1.0
    )
    assert grey.description["mean"] == [0.0, 0.0, 0.0]


def test_a_download_that_fails_says_what_from_where_and_where_to_put_it(
    published: Path, tmp_path: Path
) -> None:
    place = tmp_path / "hub" / "hub" / "checkpoints" / "squeezenet.pth"
    with pytest.raises(SecliError) as caught:
        load_external("torchvision:squeezenet1_1", taps=None, weights="DEFAULT")
    assert caught.value.exit_code == 1
    text = str(caught.value)
    assert "cannot download squeezenet.pth from http://127.0.0.1" in text
    assert f"put it at {place}" in text
    assert not place.exists()
    with pytest.raises(InputError, match="leave --offline out"):
        load_external("torchvision:squeezenet1_1", taps=None, weights="DEFAULT", offline=True)
    with pytest.raises(
        InputError, match="unknown weights of torchvision:squeezenet1_1 'OUR_V1'; did you mean 'OURS_V1'"
    ):
        load_external("torchvision:squeezenet1_1", taps=None, weights="OUR_V1")


# fields in words


def test_fields_in_words() -> None:
    assert parse_field("plane") == Plane()
    assert parse_field("plane,stride=4,origin=1.5") == Plane(4.0, 1.5)
    assert parse_field("plane,stride=4x2,origin=1.5x-0.25") == Plane((4.0, 2.0), (1.5, -0.25))
    assert parse_field("scale:1,1.41,2") == ScaleSpace((1.0, 1.41, 2.0))
    assert parse_field("scale:1,2,4,8,blur=0.5,truncated=1,stride=2") == ScaleSpace(
        (1.0, 2.0, 4.0, 8.0), 0.5, 2.0, None, 1
    )
    assert parse_field("invariant") == Invariant()
    assert parse_field("tokens:14x14+1,stride=16").reads_as() == "tokens 14×14+1, stride 16"
    assert parse_field("channels-last,stride=4").reads_as() == "channels-last plane, stride 4"
    declared = parse_fields(["blocks.*=scale:1,2", "plane,stride=4", "plane=plane"])
    assert [pattern for pattern, _ in declared] == ["blocks.*", "**", "plane"]
    assert [each.open for _, each in declared] == [("stride", "origin"), ("origin",), ("stride", "origin")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plain", "expected 'PATTERN=FIELD' or 'FIELD'"),
        ("a=plain", "unknown field 'plain'; did you mean 'plane'"),
        ("plane:3", r"expected plane\["),
        ("plane,4", r"expected plane\["),
        ("plane,strid=4", "unknown key 'strid'; did you mean 'stride'"),
        ("plane,stride=4,stride=4", "'stride' is given twice"),
        ("plane,stride=0", "must be greater than 0"),
        ("plane,stride=1x2x3", "one number, or rows x columns"),
        ("plane,origin=nan", "'nan' is not a finite number"),
        ("scale:", "'' is not a finite number"),
        ("scale:1,x", "'x' is not a finite number"),
        ("scale:2,1", "positive and increasing"),
        ("scale:1,2,truncated=3", "3 truncated levels of 2"),
        ("scale:1,2,truncated=0.5", "a whole number of levels"),
        ("scale:1,2,blur=-1", "must not be negative"),
        ("tokens", "expected tokens:14x14"),
        ("tokens:0x4", "expected tokens:14x14"),
        ("invariant,stride=2", "unknown key 'stride'"),
        ("=plane", "expected 'PATTERN=FIELD'"),
    ],
)
def test_a_wrong_field_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_fields([text])
    assert "--field" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_declared_fields_come_first_and_the_last_one_holds(here: Path) -> None:
    model = call(here, taps=None, fields=["plane,stride=3", "down=plane,stride=2,origin=0.5"])
    assert model.taps["down"] == Plane(2.0, 0.5)
    assert model.taps["conv"] == Plane(3.0, model.taps["conv"].origin)
    assert call(here, fields=["conv=invariant"]).taps == {"conv": Invariant()}


def test_a_file_without_a_function_is_told_how_to_name_one() -> None:
    from secli.training.load import load_subject

    with pytest.raises(
        InputError, match=r"'my_net.py': name the function that builds the network, my_net.py:FUNCTION"
    ):
        load_subject("my_net.py")

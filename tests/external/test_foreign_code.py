"""The code of one network touches neither another's nor ours."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from secli.errors import InputError
from secli.external.foreign_code import ForeignCode
from secli.external.load import load_external, own_name
from secli.external.targets import same_network

NET = """
import dataclasses, pickle
from layers import width
from torch import nn

@dataclasses.dataclass
class Settings:
    width: "int"

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.settings = Settings(width())
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        from late import factor
        import layers
        assert pickle.loads(pickle.dumps(self.settings)) == self.settings
        return self.conv(x) * 0 + factor() + 10 * layers.width()

def build():
    return Net()
"""


def network_in(directory: Path, number: int) -> str:
    """Write a file whose neighbours have the names of all others': one is imported late, and imports a third."""
    directory.mkdir()
    (directory / "net.py").write_text(NET)
    (directory / "layers.py").write_text(f"def width(): return {number}\n")
    (directory / "late.py").write_text("def factor():\n    from third import NUMBER\n    return NUMBER\n")
    (directory / "third").mkdir()
    (directory / "third" / "__init__.py").write_text(f"NUMBER = {number}\n")
    return f"{directory}/net.py:build"


def loaded(target: str, **options: Any) -> Any:
    return load_external(target, **{"taps": ["conv"], "input_shape": (1, 8, 8), **options})


def test_each_file_finds_its_own_neighbours_early_and_late(tmp_path: Path) -> None:
    before = dict(sys.modules), list(sys.path)
    models = [loaded(network_in(tmp_path / name, number)) for name, number in (("a", 1), ("b", 2), ("c", 3))]
    with torch.no_grad():
        for number, model in reversed(list(enumerate(models, start=1))):
            with model.code():
                assert float(model.network(torch.rand(2, 1, 8, 8)).mean()) == 11 * number
    assert list(sys.path) == before[1]
    assert not {"layers", "late", "third"} & sys.modules.keys()
    assert all(sys.modules.get(name) is module for name, module in before[0].items())


def test_modules_of_the_caller_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "layers.py").write_text("def width(): return 99\n")
    monkeypatch.syspath_prepend(str(tmp_path / "session"))
    monkeypatch.delitem(sys.modules, "layers", raising=False)
    import layers  # type: ignore[import-not-found]

    model = loaded(network_in(tmp_path / "a", 4))
    assert model.network.settings.width == 4
    assert sys.modules["layers"] is layers
    del sys.modules["layers"]  # not by monkeypatch, which would put it back


def test_a_file_of_a_package_imports_from_it(tmp_path: Path) -> None:
    package = tmp_path / "zoo" / "small"
    package.mkdir(parents=True)
    (tmp_path / "zoo" / "__init__.py").write_text("raise RuntimeError('all of it cannot be imported here')\n")
    (package / "__init__.py").touch()
    (tmp_path / "zoo" / "common.py").write_text("CHANNELS = 3\n")
    (package / "parts.py").write_text("from ..common import CHANNELS\n")
    (package / "net.py").write_text(
        "from torch import nn\nfrom .parts import CHANNELS\ndef build(): return nn.Conv2d(1, CHANNELS, 3)\n"
    )
    assert loaded(f"{package}/net.py:build", taps=["logits"], input_shape=(1, 3, 3)).network.out_channels == 3


MEDDLING = """
import logging, os, random, sys, warnings
import numpy as np
import torch
from torch import nn

def meddle():
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.manual_seed(5); np.random.seed(5); random.seed(5)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.autograd.set_detect_anomaly(True)
    torch.set_default_device("meta"); torch.set_default_device("cpu")
    torch.nn.modules.module.register_module_forward_hook(lambda module, args, output: output)
    os.environ["SECLI_TEST_WIDTH"] = "7"; os.environ.pop("HOME", None)
    os.chdir("/")
    sys.path.append("/nowhere"); sys.setrecursionlimit(1234)
    warnings.simplefilter("ignore"); np.seterr(all="raise")
    logging.basicConfig(level=logging.DEBUG, force=True)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        meddle()
        self.conv = nn.Conv2d(1, 2, 3, padding=1, dtype=torch.float32)

    def forward(self, x):
        assert os.environ["SECLI_TEST_WIDTH"] == "7"
        assert torch.get_default_dtype() is torch.float64
        assert os.getcwd() == "/" and "/nowhere" in sys.path
        meddle()
        return self.conv(x)
"""


def state() -> dict[str, Any]:
    """Return what code may change and nobody else may see."""
    import logging

    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "random": (torch.get_rng_state().tolist(), str(np.random.get_state())),  # noqa: NPY002
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "benchmark": torch.backends.cudnn.benchmark,
        "anomaly": torch.is_anomaly_enabled(),
        "hooks": len(torch.nn.modules.module._global_forward_hooks),
        "environment": dict(os.environ),
        "directory": Path.cwd(),
        "path": list(sys.path),
        "recursion": sys.getrecursionlimit(),
        "filters": list(warnings.filters),
        "numpy": np.geterr(),
        "logging": (logging.root.level, list(logging.root.handlers)),
    }


def test_what_code_changes_is_put_back_after_loading_and_after_every_pass(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MEDDLING)
    before = state()
    model = loaded(f"{tmp_path}/net.py:Net", fields=["conv=plane,stride=1,origin=0"])
    assert state() == before
    images = torch.rand(2, 1, 8, 8)
    before = state()
    for run in (model.features, model):
        with pytest.raises(Exception, match="no logits") if run is model else warnings.catch_warnings():
            run(images)
        assert state() == before


@pytest.mark.parametrize("target", ["torchvision:squeezenet1_1", "noisy.py:build", "timm:test_resnet"])
def test_fresh_weights_depend_on_the_seed_alone(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target.startswith("timm"):
        pytest.importorskip("timm")
    (tmp_path / "noisy.py").write_text(
        "import random, numpy as np, torch\nfrom torch import nn\n"
        "def build():\n"
        "    net = nn.Conv2d(3, 4, 3)\n"
        "    nn.init.constant_(net.bias, random.random() + np.random.rand())\n"
        "    return net\n"
    )
    monkeypatch.chdir(tmp_path)
    side = 3 if target.startswith("noisy") else 64
    options: dict[str, Any] = {"taps": ["logits"], "input_shape": (3, side, side)}

    def weights(seed: int) -> list[Tensor]:
        return list(load_external(target, seed=seed, **options).state_dict().values())

    alone = weights(3)
    torch.rand(7), random.random(), np.random.rand(3)  # noqa: NPY002
    load_external("noisy.py:build", taps=["logits"], input_shape=(3, 3, 3), seed=8)
    assert all(torch.equal(one, other) for one, other in zip(alone, weights(3), strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(alone, weights(4), strict=True))


def test_random_numbers_of_python() -> None:
    # by itself: the checks of types that tests run with draw from it, too
    before, code = random.getstate(), ForeignCode("net.py:build", seed=4)
    drawn = []
    for _ in range(2):
        with code():
            drawn.append(random.random())
        assert random.getstate() == before
    expected = random.Random(4)
    assert drawn == [expected.random(), expected.random()]


def test_noise_of_a_pass_is_its_own_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.conv = nn.Conv2d(1, 2, 3, padding=1)\n"
        "    def forward(self, x): return self.conv(x + torch.rand(1))\n"
    )
    images = torch.rand(1, 1, 8, 8)
    readings = []
    for _ in range(2):
        model = loaded(f"{tmp_path}/net.py:Net")
        torch.rand(3)
        readings += [model.features(images)["conv"], model.features(images)["conv"]]
    assert torch.equal(readings[0], readings[2])  # whatever else drew numbers in between
    assert not torch.equal(readings[0], readings[1])  # so that a check for noise finds it


def test_what_code_prints_goes_to_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        "import ctypes, os, sys\nfrom torch import nn\nprint('imported')\n"
        "class Net(nn.Conv2d):\n"
        "    def __init__(self):\n"
        "        print('built'); super().__init__(1, 2, 3, padding=1)\n"
        "    def train(self, mode=True):\n        print('mode'); return super().train(mode)\n"
        "    def forward(self, x):\n"
        "        sys.stdout.write('pass\\n'); os.write(1, b'raw\\n')\n"
        "        os.system('echo child'); ctypes.CDLL(None).puts(b'from C'); sys.stdout.close()\n"
        "        return super().forward(x)\n"
    )
    model = loaded(f"{tmp_path}/net.py:Net", taps=["logits"], input_shape=(1, 1, 1))
    capfd.readouterr()
    model.train().eval()
    model(torch.rand(2, 1, 1, 1))
    print("ours")  # noqa: T201
    printed = capfd.readouterr()
    assert printed.out == "ours\n"
    assert {"mode", "pass", "raw", "child", "from C"} <= set(printed.err.split("\n"))


@pytest.mark.parametrize(
    ("leaving", "message"),
    [
        ("sys.exit(0)", "SystemExit: 0"),
        ("exit('done')", "SystemExit: done"),
        ("raise Halt('enough')", "Halt: enough"),
    ],
)
@pytest.mark.parametrize("when", ["import", "build", "first pass", "later pass"])
def test_leaving_is_an_error_of_ours(leaving: str, message: str, when: str, tmp_path: Path) -> None:
    now = {
        name: leaving if name == when else "pass" for name in ("import", "build", "first pass", "later pass")
    }
    (tmp_path / "net.py").write_text(
        "import sys\nfrom torch import nn\n"
        "class Halt(BaseException): pass\n"
        f"{now['import']}\n"
        "class Net(nn.Conv2d):\n"
        f"    def __init__(self):\n        {now['build']}\n        super().__init__(1, 2, 1)\n"
        "    def forward(self, x):\n"
        f"        if len(x) == 2: {now['first pass']}\n"
        f"        if len(x) == 5: {now['later pass']}\n"
        "        return super().forward(x)\n"
    )

    def run() -> None:
        loaded(f"{tmp_path}/net.py:Net", taps=["logits"], input_shape=(1, 1, 1))(torch.rand(5, 1, 1, 1))

    with pytest.raises(InputError, match=rf"net\.py:\d+: {message}") as caught:
        run()
    assert "\n" not in str(caught.value)
    with ForeignCode("after")():  # the way in is free again
        pass


def test_lazy_inference_and_in_place_networks(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.conv = nn.LazyConv2d(4, 3, padding=1); self.norm = nn.LazyBatchNorm2d()\n"
        "        with torch.inference_mode(): self.register_buffer('kernel', torch.randn(1, 1, 3, 3))\n"
        "    def forward(self, x):\n"
        "        return self.norm(self.conv(nn.functional.conv2d(x.sub_(0.5), self.kernel, padding=1)))\n"
        "class Uncalled(Net):\n"
        "    def __init__(self):\n        super().__init__(); self.other = nn.LazyLinear(3)\n"
        "def meta():\n"
        "    with torch.device('meta'): return nn.Conv2d(1, 2, 3)\n"
    )
    model, again = (loaded(f"{tmp_path}/net.py:Net") for _ in range(2))
    images = torch.rand(2, 1, 8, 8)
    kept = images.clone()
    assert torch.equal(model.features(images)["conv"], again.features(images)["conv"])
    assert torch.equal(images, kept)
    with pytest.raises(InputError, match=r"the module of other\.weight has no size yet: no pass calls it"):
        loaded(f"{tmp_path}/net.py:Uncalled")
    with pytest.raises(InputError, match="weight and 1 more on the meta device, without values"):
        loaded(f"{tmp_path}/net.py:meta")


def test_one_network_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {own_name(name) for name in ("net.py:f", "./net.py:f", "a/../net.py:f")} == {"net.py:f"}
    assert same_network("./net.py:f") == same_network(f"{tmp_path}/net.py:f") != same_network("net.py:g")
    same: Callable[[str], str] = own_name
    assert same("timm:vit.a/b") == "timm:vit.a/b"


@pytest.mark.parametrize("where", ["factory", "forward"])
def test_an_error_that_has_no_text_is_told_by_its_type(tmp_path: Path, where: str) -> None:
    text = "import torch\nclass Mute(Exception):\n    def __str__(self): raise ValueError\n"
    text += "class Net(torch.nn.Module):\n    def forward(self, x): raise Mute\n"
    text += "def make():\n    " + ("raise Mute" if where == "factory" else "return Net()") + "\n"
    file = tmp_path / "net.py"
    file.write_text(text)
    with pytest.raises(InputError, match=r"net\.py:\d+: (Mute: )?Mute") as caught:
        loaded(f"{file}:make", taps=["logits"], input_shape=(1, 4, 4))
    assert "\n" not in str(caught.value)

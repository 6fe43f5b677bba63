"""The nets: shapes, structure, seeds, normalisation and the user's own."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedmd.config import ModelConfig
from fedmd.models import Normalise, build_model, check_model, model_for
from fedmd.models.normalise import STATISTICS
from fedmd.types import ImageSet


def build(name: str, channels: int = 1, size: tuple[int, int] = (8, 8), seed: int = 0, **settings) -> nn.Module:
    return build_model(ModelConfig(name=name, **settings), channels=channels, classes=7, image_size=size, seed=seed)


NARROW: dict[str, dict[str, int]] = {"resnet_small": {"width": 4}, "cnn": {"width": 4}, "resnet18": {}}


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    itertools.product(NARROW, (1, 3), ((8, 8), (28, 28), (32, 24))),
)
def test_logits_have_a_row_a_sample_and_a_column_a_class(name: str, channels: int, size: tuple[int, int]) -> None:
    model = build(name, channels, size, **NARROW[name])
    x = torch.rand(2, channels, *size)
    logits = model(x)
    assert logits.shape == (2, 7) and logits.isfinite().all()
    model(x.requires_grad_()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", NARROW)
def test_weights_follow_the_seed_and_the_global_generator_is_left_alone(name: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (build(name, seed=seed, **NARROW[name]).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_resnet18_is_torchvisions_but_for_the_stem_and_the_head() -> None:
    from torchvision.models import resnet18

    ours, theirs = build("resnet18", channels=3, size=(32, 32))[1], resnet18(num_classes=7)
    changed = {key for key, value in ours.state_dict().items() if value.shape != theirs.state_dict()[key].shape}
    assert ours.state_dict().keys() == theirs.state_dict().keys() and changed == {"conv1.weight"}
    assert ours.conv1.kernel_size == (3, 3) and ours.conv1.stride == (1, 1) and ours.conv1.bias is None
    assert isinstance(ours.maxpool, nn.MaxPool2d) and ours.maxpool.stride == 2
    assert sum(parameter.numel() for parameter in ours.parameters()) == 11_168_832 + 7 * 513


def test_the_cnn_of_width_32_is_mcmahans() -> None:
    model = build_model(ModelConfig(name="cnn", width=32), channels=1, classes=10, image_size=(28, 28), seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_663_370
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_the_small_resnet_has_three_stages() -> None:
    model = build("resnet_small", size=(28, 28), width=4)
    shapes = []
    for block in model[4:7]:
        block.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape[1:])))
    model(torch.rand(2, 1, 28, 28))
    assert shapes == [(4, 28, 28), (8, 14, 14), (16, 7, 7)]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_normalisation_is_per_channel_and_no_weight(channels: int) -> None:
    layer, x = Normalise(channels), torch.rand(4, channels, 5, 5)
    mean, std = STATISTICS.get(channels, ((0.5,) * channels, (0.5,) * channels))
    for channel in range(channels):
        expected = (x[:, channel] - mean[channel]) / std[channel]
        torch.testing.assert_close(layer(x)[:, channel], expected)
    assert not layer.state_dict() and not list(layer.parameters())


@pytest.mark.parametrize("name", NARROW)
def test_models_normalise_inside(name: str) -> None:
    model = build(name, channels=3, **NARROW[name]).eval()
    assert isinstance(model[0], Normalise)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(model(x), model[1:](Normalise(3)(x)))


def test_model_for_reads_the_shape_off_the_images() -> None:
    images = ImageSet(np.zeros((5, 3, 8, 12), np.uint8), np.zeros(5, np.int64), 4)
    model = model_for(ModelConfig(name="cnn", width=4), images, seed=0)
    assert model(images.tensors()[0]).shape == (5, 4)


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"name: 'vgg' is not one of cnn, mlp, resnet18, resnet_small or custom"):
        build("vgg")


def test_a_model_has_its_own_settings_only() -> None:
    with pytest.raises(ValueError, match=r"width: unknown key; allowed here: name"):
        build("resnet18", width=64)


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_fedmd_nets.py").write_text(
        "from torch import nn\n"
        "def linear(channels, classes, image_size):\n"
        "    height, width = image_size\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))\n"
        "from fedmd.config import Section\n"
        "from fedmd.models import Model\n"
        "class Deep(Model):\n"
        "    class Params(Section):\n"
        "        layers: int = 1\n"
        "    def build(self, *, channels, classes, image_size):\n"
        "        pixels = channels * image_size[0] * image_size[1]\n"
        "        hidden = [nn.Linear(pixels, pixels) for _ in range(self.params.layers)]\n"
        "        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(pixels, classes))\n"
        "def nothing(channels, classes, image_size): return 3\n"
        "def other(n): return nn.Identity()\n"
        "def broken(channels, classes, image_size): return {}['depth']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_fedmd_nets", raising=False)
    return "my_fedmd_nets"


def test_a_custom_factory_is_called_and_seeded(factories: str) -> None:
    one, same = (build("custom", 3, (4, 6), factory=f"{factories}:linear") for _ in range(2))
    assert one(torch.rand(2, 3, 4, 6)).shape == (2, 7)
    assert torch.equal(one[1].weight, same[1].weight)


def test_a_custom_class_has_settings(factories: str) -> None:
    model = build("custom", 3, (4, 6), factory=f"{factories}:Deep", params={"layers": 3})
    assert model(torch.rand(2, 3, 4, 6)).shape == (2, 7) and len(model) == 5


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (None, r'must be "package\.module:name", not None'),
        ("my_fedmd_nets.linear", r'must be "package\.module:name"'),
        ("no_such_package:f", r"cannot import no_such_package \(No module named 'no_such_package'\)"),
        ("my_fedmd_nets:nets", r"my_fedmd_nets has no nets"),
        ("my_fedmd_nets:other", r"my_fedmd_nets:other must take channels=, classes= and image_size="),
        ("my_fedmd_nets:broken", r"failed for .*KeyError: 'depth', in line \d+ of .*my_fedmd_nets\.py\)\.$"),
        ("my_fedmd_nets:nothing", r"must return a torch\.nn\.Module, not int\.$"),
    ],
)
def test_a_factory_that_cannot_be_used_gets_one_sentence(factories: str, factory: str | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"factory: .*" + sentence):
        build("custom", factory=factory)


def test_a_net_of_the_wrong_shape_is_one_sentence(factories: str) -> None:
    """`linear` is right for its size, and for no other."""
    images = ImageSet(np.zeros((3, 1, 8, 8), np.uint8), np.array([0, 1, 6]), 7)
    settings = ModelConfig(name="custom", factory=f"{factories}:linear")
    assert check_model(settings, images, 0).training
    (Path(str(sys.modules[factories].__file__)).parent / "wrong.py").write_text(
        "from torch import nn\n"
        "def narrow(*, channels, classes, image_size): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
        "def deaf(*, channels, classes, image_size): return nn.Linear(5, classes)\n"
    )
    for name, sentence in (
        ("narrow", r"wrong:narrow must give logits \[2, 7\] for images \[2, 1, 8, 8\], not \[2, 3\]\.$"),
        ("deaf", r"wrong:deaf cannot take images \[2, 1, 8, 8\] \(mat1 and mat2 shapes cannot be multiplied.*\)\.$"),
    ):
        with pytest.raises(ValueError, match=r"^model\.factory: " + sentence):
            check_model(ModelConfig(name="custom", factory=f"wrong:{name}"), images, 0)

"""Keras models on torch travel like any other module: their variables are torch's parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gridclient
from gridclient.models import get_module, send_module
from gridclient.recorder import Pointer
from tests.factories.crew import crew_of
from tests.factories.grid import LiveGrid
from tests.factories.learners import OPTIMIZERS
from tests.sdk.local_node import assert_same
from tests.sdk.training_node import TrainingNode

STEPS = 10
# Keras 3.15's variables have no `copy` keyword, which numpy 2 asks for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package on its torch backend, which it reads once, when it is imported, from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", os.fspath(tmp_path_factory.mktemp("keras")))
        import keras

        assert keras.backend.backend() == "torch"
        yield keras


def mlp(keras: Any, *more: Any) -> Any:
    """A network for 5 features and 3 classes, always with the same weights."""
    weights = keras.initializers.GlorotUniform
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(7, activation="relu", kernel_initializer=weights(seed=1)),
            *more,
            keras.layers.Dense(3, kernel_initializer=weights(seed=2)),
        ]
    )


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(4)
    return torch.randn(12, 5, generator=draw), torch.randint(3, (12,), generator=draw)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x: Any, y: Any) -> Any:
    """Ten steps; the last loss."""
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, training=True), y)
        loss.backward()
        optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("name", ["SGD", "momentum", "Adam", "AdamW"])
def test_a_keras_model_that_trained_on_a_node_is_the_one_that_trained_here(keras: Any, name: str) -> None:
    x, y = batch()
    here, there, node = mlp(keras), mlp(keras), TrainingNode()
    before = OPTIMIZERS[name](there.parameters())
    send_module(there, node.recorder)
    assert all(isinstance(parameter, Pointer) for parameter in there.parameters())
    loss = train(there, before, node.publish(x), node.publish(y, "labels"))
    get_module(there)
    assert_same(loss.get(), train(here, OPTIMIZERS[name](here.parameters()), x, y))
    for mine, other in zip(there.variables, here.variables, strict=True):
        assert type(mine.value) is nn.Parameter
        assert_same(mine.value.detach(), other.value.detach())


def test_what_keras_keeps_of_batch_norm_comes_back_with_the_model(keras: Any) -> None:
    x, y = batch()
    here, there = (mlp(keras, keras.layers.BatchNormalization()) for _ in range(2))
    node = TrainingNode()
    send_module(there, node.recorder)
    loss = train(there, OPTIMIZERS["SGD"](there.parameters()), node.publish(x), node.publish(y, "labels"))
    get_module(there)
    assert_same(loss.get(), train(here, OPTIMIZERS["SGD"](here.parameters()), x, y))
    for mine, other in zip(there.variables, here.variables, strict=True):
        assert_same(mine.value.detach(), other.value.detach())
    assert not torch.equal(there.layers[1].moving_mean.value, torch.zeros(7))


def test_dropout_of_keras_works_without_a_seed_of_its_own(keras: Any) -> None:
    x, y = batch()
    model, node = mlp(keras, keras.layers.Dropout(0.5)), TrainingNode()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    send_module(model, node.recorder)
    train(model, OPTIMIZERS["SGD"](model.parameters()), node.publish(x), node.publish(y, "labels"))
    get_module(model)
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert changed == [parameter.requires_grad for parameter in model.parameters()]


def test_dropout_of_keras_with_a_seed_says_that_the_seed_is_elsewhere(keras: Any) -> None:
    model, node = mlp(keras, keras.layers.Dropout(0.5, seed=7)), TrainingNode()
    send_module(model, node.recorder)
    with pytest.raises(gridclient.RemoteValueError):
        model(node.publish(batch()[0]), training=True)


def test_keras_itself_goes_on_with_a_model_that_came_back(keras: Any) -> None:
    x, y = batch()
    model, node = mlp(keras), TrainingNode()
    send_module(model, node.recorder)
    train(model, OPTIMIZERS["SGD"](model.parameters()), node.publish(x), node.publish(y, "labels"))
    get_module(model)
    with torch.no_grad():
        predicted = torch.as_tensor(model.predict(x.numpy(), verbose=0))
    assert_same(predicted, model(x).detach())
    assert [weights.shape for weights in model.get_weights()] == [(5, 7), (7,), (7, 3), (3,)]


def test_weights_that_are_away_are_not_zeros(keras: Any) -> None:
    model, node = mlp(keras), TrainingNode()
    send_module(model, node.recorder)
    with pytest.raises(gridclient.RemoteValueError, match=r"\.get\(\)"):
        model.get_weights()


def test_a_keras_model_trains_on_private_data_and_comes_back(keras: Any, grid: LiveGrid) -> None:
    x, y = batch()
    with crew_of(grid.hospital) as crew:
        owner, scientist = crew.hire("owner"), crew.hire("scientist")
        for values in (x, y):
            dataset = gridclient.private_tensor(values, bounds=(-5.0, 5.0)).send(owner).dataset
            owner.dataset(dataset).grant(scientist.user, "train", reason="A test.")
        labels, features = (dataset.pointer() for dataset in scientist.datasets()[:2])
        here, there = mlp(keras), mlp(keras)
        gridclient.send(there, scientist)
        loss = train(there, OPTIMIZERS["Adam"](there.parameters()), features, labels)
        gridclient.get(there)
        assert_same(loss.get(), train(here, OPTIMIZERS["Adam"](here.parameters()), x, y))
        for mine, other in zip(there.variables, here.variables, strict=True):
            assert_same(mine.value.detach(), other.value.detach())

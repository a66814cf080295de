"""Two threads and one network: the second is refused at once, and the network is afterwards as it was before."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import unetscope as us
from unetscope.activations import eval_mode, full_float32, kept_buffers, kept_parameters, trace_calls
from unetscope.activations.threads import _holders, held
from unetscope.base import NetworkError, Shared

REFUSAL = (
    r"UNet is being measured by another thread: wait for it, or give each thread a copy of its own \(copy.deepcopy\)"
)


def passed_on(_address: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return function(*args, **kwargs)


HOLDERS: dict[str, Callable[[nn.Module], AbstractContextManager[Any]]] = {
    "held": held,
    "evaluation": eval_mode,
    "tracing": lambda model: trace_calls(model, passed_on),
    "buffers": kept_buffers,
    "parameters": kept_parameters,
}


def network() -> us.UNet:
    return us.UNet(width=2, depth=1).train()


def in_thread(work: Callable[[], Any]) -> list[Any]:
    """What a function gives, or raises, in a thread of its own."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return results


def entered(context: AbstractContextManager[Any]) -> str:
    with context:
        return "entered"


def state_of(model: nn.Module) -> tuple[Any, ...]:
    hooks = [(len(each._forward_hooks), len(each._forward_pre_hooks), each.training) for each in model.modules()]
    return hooks, "forward" in vars(model)


@pytest.mark.parametrize("second", HOLDERS)
@pytest.mark.parametrize("first", HOLDERS)
def test_a_second_thread_is_refused_at_once(first: str, second: str) -> None:
    model = network()
    before = state_of(model)
    with HOLDERS[first](model):
        inside = state_of(model)
        (refused,) = in_thread(lambda: entered(HOLDERS[second](model)))
        assert isinstance(refused, NetworkError)
        assert str(refused).startswith(
            "UNet is being measured by another thread: wait for it, or give each thread a copy"
        )
        assert state_of(model) == inside
        assert in_thread(lambda: entered(HOLDERS[second](copy.deepcopy(model)))) == ["entered"]
        assert entered(HOLDERS[second](model)) == "entered"  # the same thread may
    assert in_thread(lambda: entered(HOLDERS[second](model))) == ["entered"]
    assert state_of(model) == before
    assert not _holders


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_network_is_let_go_when_its_block_fails(holder: str) -> None:
    model = network()
    with pytest.raises(KeyboardInterrupt), HOLDERS[holder](model):
        raise KeyboardInterrupt
    assert in_thread(lambda: entered(held(model))) == ["entered"]


def test_a_network_with_a_module_of_another_one_is_held_with_it() -> None:
    model = network()
    with held(nn.Sequential(nn.ReLU(), next(module for module in model.modules() if not list(module.children())))):
        (refused,) = in_thread(lambda: entered(eval_mode(model)))
    assert isinstance(refused, NetworkError)


@settings(max_examples=20)
@given(depth=st.integers(1, 6), failing=st.integers(0, 6))
def test_one_thread_may_nest_and_fail_anywhere(depth: int, failing: int) -> None:
    model = nn.Sequential(nn.Linear(1, 1))

    def nest(level: int) -> None:
        if level == failing:
            raise ValueError("inside")
        if level < depth:
            with held(model):
                assert isinstance(in_thread(lambda: entered(held(model)))[0], NetworkError)
                nest(level + 1)

    try:
        nest(0)
    except ValueError:
        assert failing <= depth
    assert in_thread(lambda: entered(held(model))) == ["entered"]


def scope_of(model: nn.Module) -> us.Scope:
    return us.Scope(model, us.synthetic_nuclei(6, image_size=16), estimators=[us.Binning()], labels=[])


def test_the_first_measurement_is_right_and_the_second_is_refused() -> None:
    torch.manual_seed(0)
    model = network()
    expected = [estimate.bits for estimate in scope_of(model).measure(0)]
    first, second = scope_of(model), scope_of(model)
    refusals: list[Any] = []

    def on_batch(_done: int, _of: int) -> None:
        refusals.extend(in_thread(lambda: second.measure(0)))

    before = state_of(model)
    assert [estimate.bits for estimate in first.measure(0, on_batch=on_batch)] == expected
    assert refusals and {str(error) for error in refusals} == {
        "UNet is being measured by another thread: wait for it, or give each thread a copy of its own (copy.deepcopy)"
    }
    assert state_of(model) == before
    assert model(torch.rand(3, 3, 16, 16)).shape[0] == 3
    assert [estimate.bits for estimate in second.measure(0)] == expected
    with pytest.raises(NetworkError, match=REFUSAL), ThreadInside(model):
        us.inspect(model, torch.zeros(1, 3, 16, 16))


class ThreadInside:
    """Another thread holds a network within the block."""

    def __init__(self, model: nn.Module) -> None:
        self._leave, self._entered = threading.Event(), threading.Event()

        def stay() -> None:
            with held(model):
                self._entered.set()
                self._leave.wait(60)

        self._thread = threading.Thread(target=stay)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._entered.wait(60)

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_may_measure_what_a_thread_of_its_parent_holds() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    with ThreadInside(model):
        child = os.fork()
        if not child:
            try:
                os._exit(0 if entered(held(model)) == "entered" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(NetworkError, match="Sequential is being measured by another thread"):
            entered(held(model))


def test_a_setting_lasts_until_the_last_thread_leaves() -> None:
    """The thread that enters first leaves first."""
    before = torch.backends.cuda.matmul.fp32_precision
    leave, inside = threading.Event(), threading.Event()
    seen: list[str] = []

    def stay() -> None:
        with full_float32():
            inside.set()
            leave.wait(60)
            seen.append(torch.backends.cuda.matmul.fp32_precision)

    thread = threading.Thread(target=stay)
    with full_float32():
        thread.start()
        assert inside.wait(60)
    leave.set()
    thread.join(60)
    assert seen == ["ieee"]
    assert torch.backends.cuda.matmul.fp32_precision == before


def test_a_setting_that_cannot_be_made_is_not_taken_back() -> None:
    class Unmakeable:
        def __enter__(self) -> None:
            raise ValueError("it cannot be made")

        def __exit__(self, *_: object) -> None:
            raise AssertionError

    shared = Shared(Unmakeable)
    for _ in range(2):
        with pytest.raises(ValueError, match="it cannot be made"), shared:
            pass


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.inner(values) + 1


def test_scripted_calls_go_to_the_mode_of_their_own_thread() -> None:
    classes = (torch._C.ScriptFunction, torch._C.ScriptMethod)
    before = [scripted.__call__ for scripted in classes]
    first, second = Scripted(), Scripted()
    seen: dict[str, list[str]] = {"first": [], "second": []}

    def noting(name: str, meanwhile: Callable[[], Any] = lambda: None) -> Callable[..., Any]:
        def intercept(address: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            seen[name].append(address)
            meanwhile()
            return function(*args, **kwargs)

        return intercept

    def trace_second() -> None:
        with trace_calls(second, noting("second")):
            second(torch.ones(1, 2))

    with trace_calls(first, noting("first", lambda: in_thread(trace_second))):
        first(torch.ones(1, 2))
    assert len(seen["first"]) == 2
    assert seen["second"] == seen["first"] * 2
    assert [scripted.__call__ for scripted in classes] == before

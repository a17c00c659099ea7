"""Contestants that take turns: each a process of its own, which compiles first; nothing else runs meanwhile."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    seconds: list[float]  # of each turn
    compiling: float
    memory: float  # GiB, the peak of the whole process


def _serve(make: Callable, arguments: tuple, pipe):
    turn, seconds = make(*arguments)
    turn()
    pipe.send(seconds)
    while pipe.recv():
        started = time.perf_counter()
        turn()
        pipe.send((time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def contest(contestants: dict[str, tuple[Callable, tuple]], turns: int) -> dict[str, Result]:
    """name -> (make, arguments), where make(*arguments) -> (a function that takes a turn and waits for it, compile seconds)."""
    context = multiprocessing.get_context("spawn")
    rivals = {}
    for name, (make, arguments) in contestants.items():  # one at a time: nothing else runs while one compiles
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(make, arguments, there), daemon=True)
        process.start()
        rivals[name] = (here, process, here.recv())
    seconds, memory = {name: [] for name in rivals}, {}
    for _ in range(turns):
        for name, (pipe, _, _) in rivals.items():
            pipe.send(True)
            took, memory[name] = pipe.recv()
            seconds[name].append(took)
    for pipe, process, _ in rivals.values():
        pipe.send(False)
        process.join()
    return {name: Result(seconds[name], compiling, memory[name]) for name, (_, _, compiling) in rivals.items()}

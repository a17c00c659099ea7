"""What a run is of, in a few plain values: two runs of one fingerprint take the same steps.

    settings          whatever the caller names
    jaxnas, key, seeds
    each phase        its steps, its data (shapes and a hash), and its program: what `init`, `draw` and `step` compute, with every
                      constant in it, such as a learning rate

Programs are compared between runs on the same platform and version of JAX, where equal code makes equal programs.
"""

import enum
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

LAYOUT = ("sharding_constraint", "reshard", "mesh_cast")  # where things lie is no part of what is computed
UNSAID = {"name", "mesh", "ctx_mesh", "debug_info"}  # parameters that change no number
PLATFORM, STRATEGY = "the platform", "the strategy"
DIGITS = 12  # of a hash
SHOWN = 3  # arrays whose shapes are named
Fingerprint = dict[str, Any]


def of_arrays(tree: Any) -> str:
    """Shapes, places in the tree and a hash of the arrays of a pytree."""
    digest, names = hashlib.sha256(), []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        a = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        names.append(f"{a.dtype}{list(a.shape)}")
        digest.update(f"{jax.tree_util.keystr(path)} {names[-1]}".encode())
        digest.update(np.ascontiguousarray(a).tobytes())
    more = f", {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more} {digest.hexdigest()[:DIGITS]}".strip()


def of_program(*closed: Any) -> str:
    """A hash of traced programs: operations, types, and every constant."""
    known: dict[int, bytes] = {}
    return hashlib.sha256(b"".join(_program(program, known) for program in closed)).hexdigest()[:DIGITS]


def _program(program: Any, known: dict[int, bytes]) -> bytes:
    """The hash of one, without names, addresses and places; `known` holds those that were walked already."""
    if id(program) not in known:
        digest = hashlib.sha256()
        for piece in _pieces(program, known):
            digest.update(piece + b";")
        known[id(program)] = digest.digest()
    return known[id(program)]


def _pieces(program: Any, known: dict[int, bytes]) -> Iterator[bytes]:
    jaxpr = program
    if hasattr(program, "consts"):  # closed
        yield from map(_plain, program.consts)
        jaxpr = program.jaxpr
    names: dict[int, int] = {}
    name = lambda v: names.setdefault(id(v), len(names))
    read = lambda v: of_arrays(v.val).encode() if hasattr(v, "val") else str(name(v)).encode()
    written = lambda v: f"{name(v)}:{getattr(v.aval, 'dtype', '')}{list(getattr(v.aval, 'shape', ()))}".encode()
    yield from map(written, (*jaxpr.constvars, *jaxpr.invars))
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in LAYOUT and not hasattr(eqn.invars[0], "val"):
            names[id(eqn.outvars[0])] = name(eqn.invars[0])
            continue
        yield eqn.primitive.name.encode()
        yield from map(read, eqn.invars)
        for parameter in sorted(eqn.params.keys() - UNSAID):
            yield parameter.encode()
            yield from _parameter(eqn.params[parameter], known)
        yield from map(written, eqn.outvars)
    yield from map(read, jaxpr.outvars)


def _parameter(value: Any, known: dict[int, bytes]) -> Iterator[bytes]:
    if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
        yield _program(value, known)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _parameter(part, known)
    else:
        yield _plain(value)


def _plain(value: Any) -> bytes:
    """Numbers, words and arrays as they are; of anything else its kind, whose text may hold an address."""
    if value is None or isinstance(value, bool | int | float | complex | str | np.generic | np.dtype | enum.Enum):
        return repr(value).encode()
    if isinstance(value, np.ndarray | jax.Array):
        return of_arrays(value).encode()
    return type(value).__name__.encode()


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def fingerprint(key: jax.Array, seeds: int | None, phases: list[tuple[int, str, str]], settings: Mapping[str, Any]) -> Fingerprint:
    """That of a run.

    Args:
        key: its root key.
        seeds: of the run.
        phases: (steps, data, program) of each.
        settings: name -> value, of what else it depends on; values that JSON holds.
    """
    import jaxnas

    found: Fingerprint = {
        **settings,
        "the root key": of_arrays(key),
        "the seeds": seeds,
        "the version of jaxnas": jaxnas.__version__,
    }
    found[PLATFORM] = f"{jax.default_backend()}, JAX {jax.__version__}"
    found["the phases"] = len(phases)
    of = lambda number: "" if len(phases) == 1 else f" of phase {number}"
    for number, (steps, data, program) in enumerate(phases, 1):
        found |= {f"the steps{of(number)}": steps, f"the data{of(number)}": data, f"{STRATEGY}{of(number)}": program}
    return json.loads(json.dumps(found))


def difference(held: Fingerprint, here: Fingerprint, grows: str | None = None) -> tuple[str, Any, Any] | None:
    """(the first field that differs, what was held, what is here), or None.

    Args:
        held: of what is gone on with.
        here: of who goes on.
        grows: a field whose value may have become larger.
    """
    elsewhere = held.get(PLATFORM) != here.get(PLATFORM)
    for field in dict.fromkeys((*here, *held)):
        was, now = held.get(field), here.get(field)
        if field == PLATFORM or (elsewhere and field.startswith(STRATEGY) and was and now):
            continue
        if field == grows and isinstance(was, int) and isinstance(now, int) and was <= now:
            continue
        if was != now:
            return field, was, now
    return None

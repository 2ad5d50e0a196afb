"""What the versions from 5 on keep of the past, and how a token changes it.

Each head keeps a matrix. In versions 5 and 6 it is decayed and gets the product of the token's key and value added; in
version 7 it is also corrected along one direction (the delta rule). Both are linear in the matrix, so a piece of a
sequence can be gone through at once: what its tokens do to each other is a small triangular matrix, and the state is
read and written once. That is how prompts are read; a decode step goes token by token.

Formulas: Peng et al. 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence", section 4, and
Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution", section 4.
"""

from __future__ import annotations

import torch

from local_llms.backends.rwkv.batch import Batch, Stretch

DECAYED_PIECE, CORRECTED_PIECE = 16, 32
"""Tokens of a sequence that are gone through at once: what was fastest on a CPU."""

_WORTH_A_PIECE = 4
"""Fewer are gone through one after the other."""


def decayed(
    state: torch.Tensor,
    receptance: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor,
    bonus: torch.Tensor,
    batch: Batch,
) -> torch.Tensor:
    """Versions 5 and 6: ``y = r (S + u k v)``, then ``S = w S + k v``.

    ``state``: shape (sequences, heads, key size, value size), changed in place. ``receptance``, ``key``, ``value`` and
    ``log_decay`` (the logarithm of w, not above 0): (rows, heads, size). ``bonus``: u, shape (heads, key size).
    Returns (rows, heads, value size).
    """
    result = torch.empty_like(value)
    own = (receptance * bonus * key).sum(dim=-1, keepdim=True) * value
    for stretch in batch.stretches:
        held = state[: stretch.count]
        for piece in _pieces(stretch, DECAYED_PIECE):
            rows = (receptance[piece.rows], key[piece.rows], value[piece.rows], log_decay[piece.rows])
            if piece.times == 1:
                result[piece.rows] = _decayed_step(held, *rows)
            else:
                result[piece.rows] = _rows(_decayed_piece(held, *(_heads(part, piece) for part in rows)))
    return result.add_(own)


def corrected(
    state: torch.Tensor,
    receptance: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor,
    away: torch.Tensor,
    towards: torch.Tensor,
    batch: Batch,
) -> torch.Tensor:
    """Version 7: ``S = (diag(w) + b a) S + k v``, then ``y = r S``.

    ``state``: shape (sequences, heads, key size, value size), changed in place. The others: (rows, heads, size);
    ``away`` is a, ``towards`` b. The decay w is never below exp(-exp(-0.5)), so that the inverse of the decay of a
    whole piece is an ordinary number. Returns (rows, heads, value size).
    """
    result = torch.empty_like(value)
    for stretch in batch.stretches:
        held = state[: stretch.count]
        for piece in _pieces(stretch, CORRECTED_PIECE):
            at = piece.rows
            rows = (receptance[at], key[at], value[at], log_decay[at], away[at], towards[at])
            if piece.times == 1:
                result[at] = _corrected_step(held, *rows)
            else:
                result[at] = _rows(_corrected_piece(held, *(_heads(part, piece) for part in rows)))
    return result


def _pieces(stretch: Stretch, most: int) -> list[Stretch]:
    """A stretch in pieces of at most so many times; where few are left, each is one of its own."""
    pieces: list[Stretch] = []
    done = 0
    while done < stretch.times:
        left = stretch.times - done
        times = min(left, most) if left >= _WORTH_A_PIECE else 1
        pieces.append(Stretch(stretch.first + done * stretch.count, times, stretch.count))
        done += times
    return pieces


def _heads(rows: torch.Tensor, piece: Stretch) -> torch.Tensor:
    """Rows, heads, size → sequences, heads, times, size."""
    return rows.view(piece.times, piece.count, *rows.shape[1:]).permute(1, 2, 0, 3)


def _rows(parts: torch.Tensor) -> torch.Tensor:
    """The way back."""
    return parts.permute(2, 0, 1, 3).flatten(0, 1)


def _decayed_step(
    state: torch.Tensor, receptance: torch.Tensor, key: torch.Tensor, value: torch.Tensor, log_decay: torch.Tensor
) -> torch.Tensor:
    result = (receptance.unsqueeze(-2) @ state).squeeze(-2)
    state.mul_(log_decay.exp().unsqueeze(-1)).addcmul_(key.unsqueeze(-1), value.unsqueeze(-2))
    return result


def _decayed_piece(
    state: torch.Tensor, receptance: torch.Tensor, key: torch.Tensor, value: torch.Tensor, log_decay: torch.Tensor
) -> torch.Tensor:
    """The decay can be as strong as it likes: only differences of its logarithm, never above 0, are raised to e."""
    until = log_decay.cumsum(dim=-2)
    since = until - log_decay
    steps = since.unsqueeze(-2) - until.unsqueeze(-3)
    earlier = torch.ones(steps.shape[-3:-1], dtype=torch.bool, device=steps.device).tril(-1)
    steps = steps.masked_fill(~earlier.unsqueeze(-1), -torch.inf).exp_()
    among = (steps * receptance.unsqueeze(-2) * key.unsqueeze(-3)).sum(dim=-1)
    result = among @ value + (receptance * since.exp()) @ state
    total = until[..., -1:, :]
    left = (key * (total - until).exp()).transpose(-1, -2)
    state.mul_(total.exp().transpose(-1, -2)).add_(left @ value)
    return result


def _corrected_step(
    state: torch.Tensor,
    receptance: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor,
    away: torch.Tensor,
    towards: torch.Tensor,
) -> torch.Tensor:
    decay = log_decay.exp()
    # A row times a matrix is far quicker here than a matrix times a column, and the state is read once for both.
    seen, past = (torch.stack([away, receptance * decay], dim=-2) @ state).unbind(-2)
    state.mul_(decay.unsqueeze(-1))
    columns, rows = torch.stack([towards, key], dim=-1), torch.stack([seen, value], dim=-2)
    state.flatten(0, 1).baddbmm_(columns.flatten(0, 1), rows.flatten(0, 1))
    mine = (receptance * key).sum(dim=-1, keepdim=True)
    return past.addcmul((receptance * towards).sum(dim=-1, keepdim=True), seen).addcmul_(mine, value)


def _corrected_piece(
    state: torch.Tensor,
    receptance: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor,
    away: torch.Tensor,
    towards: torch.Tensor,
) -> torch.Tensor:
    """``seen`` is what each token finds along its ``away``: it depends on what the tokens before it wrote there."""
    until = log_decay.cumsum(dim=-2)
    grown = (-until).exp()
    keys, corrections = (key * grown).transpose(-1, -2), (towards * grown).transpose(-1, -2)
    looks, reads = away * (until - log_decay).exp(), receptance * until.exp()
    found = looks @ state + (looks @ keys).tril_(-1) @ value
    # Of the matrix that is solved for, the diagonal is one: it is not looked at.
    effects = (looks @ corrections).tril_(-1).neg_()
    seen: torch.Tensor = torch.linalg.solve_triangular(effects, found, upper=False, unitriangular=True)
    result = reads @ state + (reads @ keys).tril_() @ value + (reads @ corrections).tril_() @ seen
    state.add_(keys @ value + corrections @ seen).mul_(until[..., -1:, :].exp().transpose(-1, -2))
    return result

"""The log replayed: verified against its chain, folded anew into the present, and fingerprinted."""

from evstore.replay.migration import Migrated, migrate
from evstore.replay.present import fingerprint, rebuild
from evstore.replay.rewriting import Commit, changed
from evstore.replay.rewriting import Transform as Transform
from evstore.replay.verification import Level as Level
from evstore.replay.verification import verify
from evstore.replay.walking import Change, walk
from evstore.sqlite.finding import Finding

__all__ = [
    "Change",
    "Commit",
    "Finding",
    "Migrated",
    "changed",
    "fingerprint",
    "migrate",
    "rebuild",
    "verify",
    "walk",
]

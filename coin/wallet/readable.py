"""Wallets as the Go node's commands and API show them: JSON without a secret."""

from __future__ import annotations

from coin.wallet.base import Entry, Wallet
from coin.wallet.bip44 import Bip44
from meshnet.node.app import Json


def wallet_json(wallet: Wallet, filename: str | None = None) -> Json:
    """`meta` and `entries`; `filename` where it lies, if that is not what the file says."""
    meta: Json = {
        "coin": wallet.form.name,
        "filename": wallet.filename if filename is None else filename,
        "label": wallet.label,
        "type": wallet.kind,
        "version": wallet.version,
        "crypto_type": wallet.meta.get("cryptoType", ""),
        "timestamp": wallet.created,
        "temp": wallet.temporary,
        "encrypted": wallet.encrypted,
    }
    if isinstance(wallet, Bip44):
        meta["bip44_coin"] = wallet.number
    if "xpub" in wallet.meta:
        meta["xpub"] = wallet.meta["xpub"]
    return {"meta": meta, "entries": [_entry_json(wallet, each) for each in wallet.entries]}


def _entry_json(wallet: Wallet, entry: Entry) -> Json:
    row: Json = {"address": entry.text, "public_key": entry.public.hex()}
    if entry.number is not None:
        row["child_number"] = entry.number
    if isinstance(wallet, Bip44):
        row["change"] = int(entry.change)
    return row

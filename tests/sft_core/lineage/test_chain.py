"""Signed, chained, safe with several processes, and handed from key to key."""

import json
import multiprocessing
import os
import subprocess

import pytest

from sft_core.errors import ConfigError, IntegrityError
from sft_core.lineage.chain import append, head_path, read_chain, rotate_key
from sft_core.lineage.merkle import leaf_hash, merkle_root
from sft_core.lineage.signing import key_of_pem, public_key

SUBJECT = [("a", "0" * 64)]


def note(text="said"):
    return append("note", SUBJECT, {"text": text})


def texts():
    return [e.predicate.get("text") for e in read_chain(public_key())]


def openssl_key(path):
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    return path


def test_the_head_holds_the_merkle_root_of_all_statements(home):
    files = [note(str(number)) for number in range(5)]
    head = json.loads(_payload(head_path()))
    leaves = [leaf_hash(bytes.fromhex(file.sha256)) for file in files]
    assert head["root"] == merkle_root(leaves).hex()
    assert head["size"] == 5
    assert [e.root for e in read_chain(public_key())] == [
        merkle_root(leaves[: n + 1]).hex() for n in range(5)
    ]


def _payload(path):
    from base64 import b64decode

    return b64decode(json.loads(path.read_bytes())["payload"])


def _write_notes(home, name):
    os.environ["TUNETRAIL_HOME"] = str(home)
    for number in range(10):
        note(f"{name} {number}")


def test_several_processes_write_at_once(home):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_notes, args=(home, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(texts()) == sorted(f"{n} {k}" for n in range(4) for k in range(10))


def test_a_rotated_key_signs_on_and_the_first_one_verifies_all(home):
    note("old")
    first = public_key()
    rotate_key()
    note("new")
    rotate_key()
    note("newest")
    assert [e.predicate.get("text") for e in read_chain(first)] == [
        "old", None, "new", None, "newest",
    ]  # fmt: skip
    assert oct((home / "keys/signing.pem").stat().st_mode & 0o777) == "0o600"
    assert not (home / "keys/signing.next.pem").exists()
    newest = read_chain(first)[3].predicate["public_key"]
    with pytest.raises(IntegrityError, match=r"00000001\.json: its signature is not by the key"):
        read_chain(key_of_pem(newest.encode()))


def test_the_old_key_signs_nothing_after_it_has_handed_over(home):
    note()
    old = (home / "keys/signing.pem").read_bytes()
    rotate_key()
    (home / "keys/signing.pem").write_bytes(old)
    with pytest.raises(IntegrityError, match="hands over to another key"):
        note("by the old one")
    (home / "keys/signing.pem").unlink()
    with pytest.raises(IntegrityError, match="hands over to another key"):
        note("by one that was made anew")


@pytest.mark.parametrize("moment", ["before the head", "before the new key is in use"])
def test_a_crash_in_the_middle_of_a_rotation_is_gone_on_from(home, moment):
    note("old")
    old, head = (home / "keys/signing.pem").read_bytes(), head_path().read_bytes()
    rotate_key()
    new = (home / "keys/signing.pem").read_bytes()
    (home / "keys/signing.next.pem").write_bytes(new)
    (home / "keys/signing.pem").write_bytes(old)
    if moment == "before the head":
        head_path().write_bytes(head)
    note("new")
    assert texts() == ["old", None, "new"]


def test_a_key_that_was_prepared_but_never_signed_for_is_not_used(home):
    note("one")
    openssl_key(home / "keys/signing.next.pem")
    note("two")
    assert texts() == ["one", "two"]


def test_a_key_from_outside_signs_and_is_rotated_to_another_one(home, tmp_path, monkeypatch):
    one, two = openssl_key(tmp_path / "one.pem"), openssl_key(tmp_path / "two.pem")
    monkeypatch.setenv("TUNETRAIL_SIGNING_KEY", str(one))
    note("one")
    assert not (home / "keys/signing.pem").exists()
    with pytest.raises(ConfigError, match="--to"):
        rotate_key()
    rotate_key(two)
    with pytest.raises(IntegrityError, match="hands over to another key"):
        note("still the first")
    monkeypatch.setenv("TUNETRAIL_SIGNING_KEY", str(two))
    note("two")
    assert texts() == ["one", None, "two"]


@pytest.mark.parametrize("kind", ["missing", "words", "rsa"])
def test_a_key_that_cannot_sign_is_refused(home, tmp_path, monkeypatch, kind):
    path = tmp_path / "key.pem"
    if kind == "words":
        path.write_text("no key")
    if kind == "rsa":
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", "rsa", "-out", path], check=True,
            capture_output=True,
        )  # fmt: skip
    monkeypatch.setenv("TUNETRAIL_SIGNING_KEY", str(path))
    with pytest.raises(ConfigError, match=r"key\.pem"):
        note()
    assert not head_path().exists()

"""The identity of a record does not depend on which library wrote its JSON."""

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from sft_core.records import canonical_json, row_id

TEXT = st.text(st.characters(codec="utf-8"))
MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | st.integers() | FLOATS | TEXT
META = st.dictionaries(TEXT, PLAIN | st.lists(PLAIN) | st.dictionaries(TEXT, PLAIN), max_size=3)


@given(MESSAGES, META)
def test_row_id_is_the_digest_of_the_canonical_json(messages, meta):
    canonical = canonical_json({"messages": messages, "meta": meta})
    assert row_id(messages, meta) == hashlib.sha256(canonical).hexdigest()
    assert json.loads(canonical) == {"messages": messages, "meta": meta}


@given(META)
def test_canonical_json_does_not_depend_on_the_order_of_keys(meta):
    assert canonical_json(dict(reversed(meta.items()))) == canonical_json(meta)


def test_row_ids_stay_what_they_are():
    messages = [{"role": "user", "content": 'é "q"\n\x1f\x7f\u2028😀'}]
    meta = {"b": 1e16, "a": [1e-7, 0.1, None, True, 2**60]}
    assert canonical_json({"messages": messages, "meta": meta}).decode() == (
        '{"messages":[{"content":"é \\"q\\"\\n\\u001f\x7f\u2028😀","role":"user"}],'
        '"meta":{"a":[1e-07,0.1,null,true,1152921504606846976],"b":1e+16}}'
    )
    assert row_id(messages, meta) == (
        "22c840d808108f6de6f8bc91e53f77aaaf94ed21414f6d0240343a95f800db76"
    )

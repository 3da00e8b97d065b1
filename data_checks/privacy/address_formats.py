"""Street addresses, postal codes and names of people: found by the words around them.

Neither has check digits. A street is a house number with a street word of its language, a delivery
point (post box, apartment, military mail), or a capitalised place after an address cue. A name is
capitalised words after a title or a label; names without a cue are not found, which the card says.

Source: USPS Publication 28, appendices B (states) and C (street suffixes, secondary units); UPU S42
address templates; Royal Mail and Canada Post postal code formats.
"""

from __future__ import annotations

import re

from data_checks.privacy.scanning import Detector, Span

_UPPER = "".join(c for c in map(chr, range(0x530)) if c.isupper())
"""Capital letters of the Latin, Greek and Cyrillic scripts, for a character class."""
_WORD = rf"[{_UPPER}][\w'’.-]{{0,40}}"
_UNIT = r"(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Room|Rm)\b\.?[ ]?#?[0-9]{1,5}[A-Z]?\b"
_SUFFIX = (
    "Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Square"
    "|Sq|Terrace|Ter|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Trail|Trl|Close|Crescent|Cres|Gardens|Grove"
    "|Mews|Row|Quay|Alley|Loop|Plaza|Turnpike|Tpke|Hill|Heights|Walk|Parade|Esplanade|Broadway"
)
_PREFIX = (
    r"Rua|Rue|Via|Viale|Vicolo|Corso|Piazza|Piazzale|Calle|Avenida|Av\.|Avda\.?|Carrera|Paseo|Plaza"
    r"|Praça|Travessa|Largo|Boulevard|Bd\.?|Allée|Chemin|Quai|Impasse|Avenue|Cours|Rúa|Carrer|Camino"
    r"|Calea|Strada|[Uu]l\.|[Uu]lica|[Uu]lice|[Tt]rg|Náměstí|nám\.|ulitsa|[Уу]л\.|[Уу]лица"
    r"|Λεωφόρος|Λ\.|Οδός|Jalan|Jl\.?"
)
_ENDING = (
    "stra(?:ß|ss)e|str\\.|gasse|weg|platz|allee|damm|ufer|brücke|graben|berg|vej|vejen|vænget|sgade"
    "|gaden|rgade|ngade|allé|gatan|gata|gaten|väg|vägen|vägar|vegen|veien|vegur|stræti|straeti"
    "|braut|katu|ntie|kuja|polku|laan|straat|plein|gracht|singel|hof|hove|dreef|steenweg|tänav"
)
_STREET_NOUN = (
    r"[Ss]tra(?:ß|ss)e|[Ss]tr\.|[Gg]asse|[Pp]latz|u\.|út|útja|utca|tér|rkp\.|körút|kapu|sétány|fasor"
    r"|köz|terrasse|str|tn|mnt|tänav|gatve|iela|prospekt"
)
# What follows a street: units, then up to four lines or parts of capitalised words and a code.
_TAIL = (
    rf"(?:,?\s{{1,3}}(?:>[ ]?)?{_UNIT}){{0,2}}"
    rf"(?:(?:[\s,>]{{1,12}}\(?{_WORD}\)?(?:[ ][a-z]{{2,4}}(?=[ ][{_UPPER}]))?){{0,8}}[\s,>]{{1,12}}"
    r"(?:[0-9]{4,6}(?:-[0-9]{3,4})?|[0-9]{2}-[0-9]{3}|[0-9]{3} [0-9]{2}|[0-9]{4} [A-Z]{2})"
    r"(?![\w]|[ .-]?[0-9]))?"
)
_CUE = (
    r"address(?:es)?(?: (?:to|is|with))?|lives? (?:at|on)|living (?:at|on)|resid\w+ (?:at|on)"
    r"|located (?:at|on)|stay\w* at|sent? to|one to|ship\w* to|deliver\w* to|mail\w* to"
    r"|move[ds]? to|meet\w*(?: \w+)? at|offices? (?:is|are)(?: located)? (?:at|on|in)"
    r"|arrived? at|return(?:ed)? to|off at|enter on|side of|meeting at"
    r"|(?:restaurant|station|house|home|clinic|shop) is (?:at|on)"
)
_NO_STREET = (
    r"(?!(?:[AP]\.?M|Hz|MHz|[CF]|GB|MB|kg|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b)"
)
_STATES = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]"
    "|T[NX]|UT|V[AT]|W[AIVY]|GU|VI"
)
_PARTICLE = r"(?:de|del|della|di|da|dos|das|van|von|der|den|ter|ten|la|le|bin|al|el|y|zu)"
_NAME = (
    rf"(?:[{_UPPER}]\.[ ]?){{0,3}}[{_UPPER}](?:[\w'’-]{{1,40}}|\.)"
    rf"(?:[ ](?:{_PARTICLE}[ ]){{0,2}}[{_UPPER}](?:[\w'’-]{{1,40}}|\.?)){{0,3}}"
)
_TITLE = (
    r"Mr|Mrs|Ms|Miss|Mx|Messrs|Dr|Drs|Prof|Professor|Doctor|Rev\.|Reverend|Sir|Dame|Madam|Sgt\.|Lt\."
    r"|Capt\.|Herr|Frau|Señor|Señora|Sra?\.|Mme|Mlle|Monsieur|Madame|Signor|Signora"
)
_LABEL = (
    r"(?:(?:full|first|last|middle|maiden|sur|given|family|user|patient|client|customer|contact"
    r"|card ?holder|account ?holder|emergency contact|mother'?s?|father'?s?|spouse'?s?)[ _]?)?name"
    r"|patient|client|next of kin|emergency contact|signed(?: by)?|dictated by|reviewed by"
    r"|reported by|referred by|prepared by|attn|card ?holder|addressee|recipient"
)
_ROLE = (
    r"guardian|physician|provider|attending|surgeon|nurse|clinician|therapist|radiologist"
    r"|pathologist|mother|father|spouse|employee|beneficiary|cc|consultant"
)
_NO_NAME = re.compile(
    "the|an?|and|or|of|in|on|at|is|was|who|not?|unknown|none|yes|please|thanks?|this|that|he|she|it"
    "|they|we|you|i|nurse|doctor|patient|history|age|sex|male|female|date|name|number|all|sir|madam"
    "|everyone|team|colleagues?|customer|friends?|editor|student",
    re.IGNORECASE,
)


_FIRST_WORD = re.compile(r"[\w'’]+")
_NAME_END = re.compile(r"['’]s?$|(?<=\w\w)\.$")


def _name(match: re.Match[str]) -> Span | None:
    """The capitalised words after the cue, unless they start like a sentence or a salutation."""
    first = _FIRST_WORD.match(match["v"])
    if first is None or _NO_NAME.fullmatch(first[0]):
        return None
    value = _NAME_END.sub("", match["v"])
    return match.start("v"), match.start("v") + len(value)


_CAPITAL = r"[^ -@\[-~]"
"""In a gate: a capital letter, or any sign beyond ASCII."""
_GATE_WORD = rf"{_CAPITAL}[^ \n]{{0,40}}"
_UNIT_GATE = r"\b(?:Apt|Apartment|Suite|Ste)\b\.? ?#?[0-9]"


def _street(gate: str, pattern: str, starts: str = "") -> Detector:
    return Detector("street", gate, re.compile(pattern), starts=starts)


DETECTORS = (
    # Before an apartment or a suite, on the same line or the one above, stands the street.
    _street(
        _UNIT_GATE,
        rf"(?<![\w.-])[0-9]{{1,6}}[A-Za-z]?(?:[ ][^\s,\[\]]{{1,30}}){{1,6}}?,?\s{{1,3}}(?:>[ ]?)?"
        rf"(?=Apt|Suite|Ste\b|Apartment){_UNIT}{_TAIL}",
        r"\b[0-9]{1,6}[A-Za-z]?(?:[ ][^\s,\[\]]{1,30}){1,6},?[^!-~]{1,3}(?:> ?)?(?:Ap|Suite|Ste\b)",
    ),
    # 12 North Main Street, 4966 Bond St.
    _street(
        rf"\b[0-9]{{1,6}}[A-Za-z]?(?: [0-9]{{1,6}})?(?: {_GATE_WORD}){{1,4}} (?:{_SUFFIX})\b",
        rf"(?<![\w.-])[0-9]{{1,6}}[A-Za-z]?(?:[ ][0-9]{{1,6}})?(?:[ ]{_WORD}){{1,4}}?[ ]"
        rf"(?:{_SUFFIX})\b\.?(?:[ ](?:[NSEW]{{1,2}}|North|South|East|West)\b\.?)?{_TAIL}",
    ),
    # Rua do Arenque 1634; 20 Rue Hsine Eloued; ul. Miła 53.
    _street(
        rf"(?:{_PREFIX})[ ]",
        rf"(?<![\w.-])(?:(?P<n>[0-9]{{1,6}},?[ ]){{1,2}})?(?:{_PREFIX})"
        rf"(?:[ ](?:{_PARTICLE}|do|du|des|of)){{0,2}}(?:[ ]{_WORD}){{1,4}}"
        rf"(?(n)(?:,?[ ][0-9]{{1,5}}[A-Za-z]?\b)?"
        rf"|,?[ ](?:n[.º°]?[ ]?)?[0-9]{{1,5}}[A-Za-z]?\b){_TAIL}",
        rf"(?:\b[0-9]{{1,6}},? ){{0,2}}(?:{_PREFIX})[ ]",
    ),
    # Puruntie 82; Brucker Bundesstrasse 31.
    _street(
        rf"(?:{_ENDING})[ ][0-9]",
        rf"(?<![\w.-])(?:[0-9]{{1,6}}[ ])?(?:{_WORD}[ ]){{0,2}}"
        rf"[{_UPPER}][\w-]{{0,40}}(?:{_ENDING})[ ][0-9]{{1,4}}[A-Za-z]?\b{_TAIL}",
        rf"(?:\b[0-9]{{1,6}} )?(?:{_GATE_WORD} ){{0,2}}{_GATE_WORD}(?:{_ENDING}) [0-9]",
    ),
    # Villacher Strasse 89; Csabai kapu 39.
    _street(
        rf"[ ](?:{_STREET_NOUN})[ ][0-9]",
        rf"(?<![\w.-])(?:[0-9]{{1,6}}[ ])?(?:{_WORD}[ ]){{1,3}}(?:{_STREET_NOUN})[ ]"
        rf"[0-9]{{1,4}}[A-Za-z]?\b\.?{_TAIL}",
        rf"(?:\b[0-9]{{1,6}} )?(?:{_GATE_WORD} ){{1,3}}(?:{_STREET_NOUN}) [0-9]",
    ),
    # Post boxes and US military mail.
    _street(
        r"(?i)\bp\.? ?o\.? ?box|post ?box|\bbox [0-9]|\b[AFD]PO,? A[AEP]",
        r"(?<![\w.-])(?:[0-9]{1,6}[ ])?"
        r"(?:\b(?i:p\.?[ ]?o\.?[ ]?box|post(?:al)?[ ]?box)[ ][0-9]{1,6}\b"
        r"|\b(?i:PSC|CMR|Unit)[ ][0-9]{1,5},?[ ](?i:Box)[ ][0-9]{1,6}"
        r"(?:[\s,]{1,3}(?i:[AFD]PO,?[ ]A[AEP])[ ][0-9]{5}(?:-[0-9]{4})?)?"
        rf"|\b[AFD]PO,?[ ]A[AEP][ ][0-9]{{5}}(?:-[0-9]{{4}})?){_TAIL}",
        r"(?i)\b(?:[0-9]{1,6} )?(?:p\.? ?o\.? ?box|post(?:al)? ?box|[AFD]PO,? A[AEP]"
        r"|(?:PSC|CMR|Unit) [0-9]{1,5},? box) [0-9]",
    ),
    # the corner of Main Street and Fifth
    _street(
        r"corner of ",
        rf"\b(?:[Tt]he )?corner of [\w'’. -]{{3,60}}? and (?:[0-9]{{1,6}}[ ])?{_WORD}"
        rf"(?:[ ]{_WORD}){{0,3}}",
        r"\b(?:[Tt]he )?corner of ",
    ),
    # lives at 172 Maneeži 75, the address is Maneeži 75
    Detector(
        "street",
        rf"(?i:\b(?:{_CUE})\b)[^0-9\[\].?!]{{0,40}}"
        rf"[0-9]{{1,6}}[A-Za-z]?(?: [0-9]{{1,6}})? {_CAPITAL}",
        re.compile(
            rf"(?i:\b(?:{_CUE})\b)[^0-9\[\].?!]{{0,40}}?"
            rf"(?P<v>[0-9]{{1,6}}[A-Za-z]?(?:[ ][0-9]{{1,6}})?[ ]"
            rf"{_NO_STREET}{_WORD}(?:[ ]{_WORD}){{0,3}}(?:[ ][0-9]{{1,5}}\b)?{_TAIL})"
        ),
    ),
    Detector(
        "street",
        r"(?i:\b(?:address(?: is)?|lives? (?:at|on)|residing at|located (?:at|on)"
        rf"|(?:office|station) is (?:at|on))\b):?[^!-~]{{1,3}}{_CAPITAL}",
        re.compile(
            r"(?i:\b(?:address(?: is)?|lives? (?:at|on)|residing at|located (?:at|on)"
            r"|(?:office|station) is (?:at|on))\b):?\s{1,3}"
            rf"(?P<v>{_WORD}(?:[ ]{_WORD}){{0,3}}[ ][0-9]{{1,5}}[A-Za-z]?\b{_TAIL})"
        ),
    ),
    # A line that is number, capitalised words, number: 20789 Allika 46
    _street(
        r"(?m)^[> \t]*[0-9]{3,6} [^\n]{2,60} [0-9]{1,5}\.?$",
        rf"(?m)^[> \t]*[0-9]{{3,6}}(?:[ ]{_WORD}){{1,4}}[ ][0-9]{{1,5}}\.?$",
    ),
    # Secondary units on their own, or before the street.
    _street(
        _UNIT_GATE,
        rf"\b(?=Apt|Suite|Ste\b){_UNIT}"
        rf"(?:,?[ ][0-9]{{1,6}}(?:[ ]{_WORD}){{1,4}}(?:[ ][0-9]{{1,5}}\b)?{_TAIL})?",
    ),
    # Springfield, IL 62704
    Detector(
        "postal_code",
        rf"\b(?:{_STATES})[ ]{{1,2}}[0-9]{{5}}",
        re.compile(
            rf"(?:[,\n][ ]*|[a-z][ ])(?:{_STATES})[ ]{{1,2}}"
            r"(?P<v>[0-9]{5}(?:-[0-9]{4})?)(?![\w*-])"
        ),
        starts=rf"(?:[,\n] *|[a-z] )(?:{_STATES}) {{1,2}}[0-9]{{5}}",
    ),
    Detector(
        "postal_code",
        r"(?i)\b(?:zip|post(?:al)? ?code|postcode|PLZ)\b",
        re.compile(
            r"(?i)\b(?:zip|post(?:al)?[ ]?code|PLZ)\b(?:[ _]?code)?"
            r"(?:[ \t]*(?:is|was|[:#=]))*[ \t]*"
            r"(?P<v>(?=[A-Z0-9 -]{0,6}[0-9])[A-Z0-9]{2,6}(?:[ -][A-Z0-9]{2,4})?)(?![\w*]| ?\*)"
        ),
    ),
    # Portugal and Brazil, beside a place name.
    Detector(
        "postal_code",
        r"[^ -@\[-`{-~][ ,]{1,2}[0-9]{4,5}-[0-9]{3}|[0-9]{4}-[0-9]{3}[ ,]{1,2}[^ -@\[-~]",
        re.compile(
            rf"(?<=\w[ ,])[ ]?(?P<v>[0-9]{{4,5}}-[0-9]{{3}})(?![\w-])(?=[ ,]{{1,2}}{_WORD})"
            rf"|(?<!\w)[{_UPPER}]\w{{2,40}}[ ,]{{1,2}}(?P<w>[0-9]{{4,5}}-[0-9]{{3}})(?![\w=>-])"
        ),
        lambda m: m.span("v") if m["v"] else m.span("w"),
        starts=rf" ?\b[0-9]{{4,5}}-[0-9]{{3}}[ ,]{{1,2}}{_CAPITAL}"
        rf"|{_GATE_WORD}[ ,]{{1,2}}[0-9]{{4,5}}-[0-9]{{3}}",
    ),
    # United Kingdom and Canada: the format alone is telling.
    Detector(
        "postal_code",
        r"\b[A-Z]{1,2}[0-9][0-9A-Z]? [0-9][A-Z]{2}\b|\b[A-Z][0-9][A-Z][ -][0-9][A-Z][0-9]\b",
        re.compile(
            r"(?<![\w-])(?:(?:[A-PR-UWYZ][A-HK-Y]?[0-9][0-9A-HJKPSTUW]?) [0-9][ABD-HJLNP-UW-Z]{2}"
            r"|[ABCEGHJ-NPRSTVXY][0-9][ABCEGHJ-NPRSTV-Z] [0-9][ABCEGHJ-NPRSTV-Z][0-9])(?![\w-])"
        ),
    ),
    # Mr Jones, Dr. Ana de Silva
    Detector(
        "name",
        rf"\b(?:{_TITLE})\.? [^ -@\[-~]",
        re.compile(rf"(?<![\w&])(?:{_TITLE})\.?[ ](?P<v>{_NAME})"),
        _name,
    ),
    # Patient: Ana; name: Ana Silva; Nurse: Ana Silva
    Detector(
        "name",
        rf"(?i:\b(?:{_ROLE}))[ \t]*[:=][ \t]*[^a-z0-9]",
        re.compile(rf"(?i:\b(?:{_ROLE}))[ \t]*[:=][ \t]*(?P<v>(?=[\w.'’-]+[ ][{_UPPER}]){_NAME})"),
        _name,
    ),
    Detector(
        "name",
        rf"(?i)\b(?:{_LABEL})[ \t]*[:=]",
        re.compile(rf"(?i:\b(?:{_LABEL}))[ \t]*[:=][ \t]*\n?[ \t]*(?P<v>{_NAME})"),
        _name,
    ),
    # my name is Ana; Sincerely, Ana Silva
    Detector(
        "name",
        r"(?i:\bname is|sincerely|regards|yours truly|yours faithfully|signed(?: by)?|\bdear)[,:]?"
        r"[^!-~]{1,3}[^a-z0-9 ]",
        re.compile(
            r"(?:\b(?i:(?:my|her|his|their|the|patient'?s?)(?: \w+)? name is)"
            r"|\b(?i:sincerely|regards|yours truly|yours faithfully|signed(?: by)?)[,:]?"
            rf"|\b[Dd]ear)\s{{1,3}}(?P<v>{_NAME})"
        ),
        _name,
        starts=r"(?i:\b(?:my|her|his|their|the|patient'?s?)(?: [^ \n]+)? name is"
        r"|\b(?:sincerely|regards|yours truly|yours faithfully|signed(?: by)?)[,:]?|\bdear)"
        r"[^!-~]{1,3}[^a-z0-9 ]",
    ),
)

"""What introduces an answer in other languages than English: one table for letters and numbers.

It has the languages of MMMLU and Global-MMLU. The English words, whose sentences vary most, are known to each parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple, TypeAlias

from harness.parsers.statements import has_any, last_of


class Language(NamedTuple):
    """Alternatives of regular expressions, all in lower case.

    `answer`: "answer", "correct answer". `choice`: "option", "I choose", which introduce a letter only. `link`: "is".
    `right`: "correct", behind a letter. `point` tells whether its numbers have a decimal point, not a comma.
    """

    answer: str
    choice: str
    link: str
    point: bool = False
    right: str = ""


#: Chinese and Japanese share words for "answer".
_HAN_LINK: Final = "[应應]?[该該]?[是为為]|选|選|は|が|を"
LANGUAGES: Final = {
    "Amharic": Language("መልሱ|መልስ", "ምርጫ", "ነው", point=True),
    "Arabic": Language("الإجابة|الاجابة|إجابة|اجابة|الجواب|جواب", "الخيار|الاختيار|أختار|اختار", "هي|هو", point=True),
    "Bengali": Language("উত্তরঃ|উত্তরটি|উত্তর|জবাব", "বিকল্প|বেছে নিচ্ছি", "হলো?|হচ্ছে|হবে", point=True),
    "Chinese": Language(
        "答案|答覆|答复|答曰|解答|正解|答",
        "选择|選擇|选项|選項|选|選|正确的是|正确是|正確的是|而是",
        _HAN_LINK,
        point=True,
        right="正确|正確",
    ),
    "Czech": Language("odpověď|správně|řešení", "možnost|volím|vybírám", "je|zní"),
    "Danish": Language("svaret|svar", "valgmulighed|jeg vælger", "er"),
    "Dutch": Language("antwoord", "optie|keuze|ik kies", "is|luidt|zou", right="juist|correct"),
    "Filipino": Language("sagot", "pinipili ko|opsyon", "ay", point=True),
    "Finnish": Language("vastaus", "vaihtoehto|valitsen", "on"),
    "French": Language(
        "réponse|reponse|solution correcte", "choix|lettre|je choisis|bonne option", "est|serait|sera",
        right="correcte|correct|exacte|exact|juste",
    ),
    "German": Language(
        "antwort|lösung|richtig", "auswahl|buchstabe|ich wähle|ich nehme|korrekt|sondern", "ist|lautet|wäre|sei",
    ),
    "Greek": Language("απάντηση|απαντηση|λύση", "επιλογή|επιλέγω|σωστό", "είναι"),
    "Hausa": Language("amsar|amsa", "zaɓi", "ita ce|shi ne|ce|ne", point=True),
    "Hebrew": Language("התשובה|תשובה", "אפשרות|האפשרות|אני בוחר", "היא|הוא", point=True),
    "Hindi": Language("उत्तरः|उत्तर|जवाब", "विकल्प|मैं चुनता", "है|हो(?:गा)?", point=True),
    "Hungarian": Language("válasz|megoldás", "választom", "a|az"),
    "Igbo": Language("azịza|aziza", "nhọrọ", "bụ|bu", point=True),
    "Indonesian": Language("jawabannya|jawaban", "pilihan|opsi|saya memilih", "adalah|ialah|yaitu"),
    "Italian": Language(
        "risposta|soluzione", "opzione|lettera|scelgo|alternativa", "è|sarebbe|e'",
        right="corretta|corretto|giusta|esatta",
    ),
    "Japanese": Language(
        "答え|正解|回答|解答|正答", "選択肢|正しいのは", _HAN_LINK, point=True, right="選び|選ぶ|選択し|正しい",
    ),
    "Korean": Language(
        "정답|답변|해답|답", "선택지|보기|선택", "은|는|이|가|을|를", point=True,
        right="선택|맞습|옳",
    ),
    "Kyrgyz": Language("жооп", "вариант", "бул"),
    "Lithuanian": Language("atsakymas", "variantas|renkuosi", "yra"),
    "Malagasy": Language("valiny|valin-teny", "safidy", "dia"),
    "Malay": Language("jawapannya|jawapan", "pilihan|saya memilih", "ialah|adalah", point=True),
    "Nepali": Language("जवाफ", "विकल्प", "हो(?:गा)?", point=True),
    "Norwegian": Language("svaret|svar", "alternativ|jeg velger", "er"),
    "Nyanja": Language("yankho", "chisankho", "ndi|ndilo", point=True),
    "Persian": Language("پاسخ|جواب", "گزینه|انتخاب", "است|برابر", point=True),
    "Polish": Language(
        "odpowiedzią|odpowiedź|odpowiedz|rozwiązanie", "opcja|wybieram|poprawna|prawidłowa", "to|jest|brzmi"
    ),
    "Portuguese": Language(
        "resposta|solução", "opção|letra|escolho|alternativa|gabarito|a correta", "é|seria|será", right="correta|certa"
    ),
    "Romanian": Language("răspunsul|raspunsul|răspuns|raspuns", "varianta|opțiunea|aleg", "este|e"),
    "Russian": Language("ответом|ответ|решение", "вариант|выбираю|правильно|верно", "это|является|будет?|равен"),
    "Serbian": Language("odgovor|одговор", "opcija|biram|опција|бирам", "je|је"),
    "Shona": Language("mhinduro", "sarudzo", "ndi|ndeiyi|ndeye", point=True),
    "Sinhala": Language("පිළිතුර|උත්තරය", "විකල්පය", "වන්නේ", point=True),
    "Somali": Language("jawaabta|jawaabtu|jawaab", "doorasho", "waa", point=True),
    "Spanish": Language(
        "respuesta|solución", "opción|letra|elijo|escojo|alternativa|la correcta|lo correcto|sino", "es|sería|será",
        right="correcta|correcto",
    ),
    "Swahili": Language("jibu", "chaguo|nachagua", "ni", point=True),
    "Swedish": Language("svaret|svar", "alternativ|jag väljer", "är"),
    "Tamil": Language("விடை|பதில்", "விருப்பம்", "என்பது", point=True),
    "Telugu": Language("సమాధానం|జవాబు", "ఎంపిక", "అనేది", point=True),
    "Thai": Language("คำตอบ|ตอบ", "ตัวเลือก|ข้อ|เลือก", "คือ|เป็น", point=True),
    "Turkish": Language("cevabı|cevap|yanıtı|yanıt", "seçeneği|seçenek|şık|seçiyorum", "dır|olur"),
    "Ukrainian": Language("відповіддю|відповідь", "варіант|обираю|правильно", "це|є|будет?"),
    "Vietnamese": Language("đáp án|câu trả lời|trả lời", "phương án|lựa chọn|chọn", "là"),
    "Yoruba": Language("ìdáhùn|idáhùn|idahun|àdáhùn", "àṣàyàn", "ni", point=True),
}  # fmt: skip
#: Words by which a sentence about an answer denies it.
_DENIALS: Final = (
    r"[不没沒非未无無]|아[니닌]|\bне\b|ليس|غير|\bلا\b|नहीं|নয়|ไม่|\bלא\b|אינ|\bδεν\b|\bόχι\b|نیست"
    r"|\bno\b|\bnon\b|\bnicht\b|\bkein|\bnão\b|\bniet\b|\bnie\b|\bnení\b|\binte\b|\bikke\b|\bbukan\b|\btidak\b"
    r"|\bkhông\b|\bsi\b|\bpas\b|\bsio\b"
)
_LATIN: Final = "a-z\u00df-\u024f\u1e00-\u1eff"
#: What denies behind the value ("Bではない").
DENIED_BEHIND: Final = re.compile(
    r"[\s\"')\].]{0,4}(?:(?:では|じゃ)(?:ない|ありません)|[가이은는]?\s?아니|(?:विकल्प\s)?नहीं|নয়|ไม่(?:ใช่|ถูก)|نیست|不(?:是|对|對|正))"
)
_FILLER: Final = re.compile(
    r"(?:[\s\"':=—–-]*+(?:donc|also|daher|somit|folglich|portanto|quindi|dunque|logo|entonces|dus|więc|tedy|alltså"
    r"|siis|karenanya|deci|vậy|thus)\s,?)?+"
    r"(?:[\s\"':=—–-]*+(?:(?:la|el|le|lo|die|der|das|den|het|een|il|con|det|toto|a|o)\s(?![eoy]\s[a-z]\b)(?=[(\[]?(?:\d|[a-z][)\].]?(?!\w)))"
    r"|options?|letter|litera|litery|písmeno|bokstaven?|huruf|herufi|câu|buchstaben|букв[аоу]й?|под\sбуквой|литера)\b)?+"
    r"[\s\"':=—–-]*+"
)


#: Words that may follow a letter in those languages ("B porque …"); some of them are English nouns.
CONNECTIVES: Final = frozenset(
    [
        "porque",
        "pues",
        "ya",
        "puesto",
        "parce",
        "car",
        "puisque",
        "weil",
        "denn",
        "da",
        "perché",
        "poiché",
        "pois",
        "já",
        "omdat",
        "want",
        "ponieważ",
        "bo",
        "protože",
        "karena",
        "sebab",
        "kerana",
        "vì",
        "bởi",
        "çünkü",
        "kwa",
        "sababu",
        "deoarece",
        "eftersom",
        "fordi",
        "koska",
        "jer",
        "zato",
        "que",
        "y",
        "e",
        "et",
        "und",
        "o",
        "ou",
        "oder",
        "pero",
        "mas",
        "aber",
        "ma",
        "dan",
        "yaitu",
        "adalah",
        "ist",
        "es",
        "est",
        "é",
        "è",
        "se",
        "sie",
        "vilket",
        "som",
        "şıkkı",
        "şıkkıdır",
        "seçeneği",
        "seçeneğidir",
    ]
)


#: A text with one of these is English; in that, few labels of other languages are looked for, to be fast.
_ENGLISH: Final = (" the ", " is ", "the ")
_FREQUENT: Final = (
    "respuesta",
    "antwort",
    "resposta",
    "risposta",
    "antwoord",
    "jawa",
    "svar",
    "cevap",
    "jibu",
    "odpow",
    "optie",
    "juist",
)


class Label(NamedTuple):
    """A label: where it starts, where what it introduces starts, and whether numbers there have a decimal comma."""

    start: int
    end: int
    comma: bool


class _Word(NamedTuple):
    """A word that introduces an answer: where it stands, how it goes on, and whether a decimal comma follows it."""

    pattern: re.Pattern[str]
    link: re.Pattern[str]
    predicate: re.Pattern[str]
    comma: bool


_NEVER: Final = re.compile("(?!)")

#: Where a word starts and ends, and the word.
FoundWord: TypeAlias = tuple[int, int, _Word]


@cache
def _words(choices: bool, ascii_only: bool) -> dict[str, _Word]:
    told: dict[str, list[Language]] = {}  # one word may be of several languages
    right: dict[str, list[Language]] = {}
    for language in LANGUAGES.values():
        for word in dict.fromkeys(f"{language.answer}|{language.choice if choices else language.answer}".split("|")):
            if word.isascii() or not ascii_only:
                told.setdefault(word, []).append(language)
        for word in filter(None, language.right.split("|") if choices else ()):
            if word.isascii() or not ascii_only:
                told.setdefault(word, [])
                right.setdefault(word, []).append(language)
    words: dict[str, _Word] = {}
    for word, languages in told.items():
        latin = re.search(f"[{_LATIN}]", word) is not None
        verbs, called = _joined(languages), _joined(right.get(word, languages))
        words[word] = _Word(
            re.compile(rf"\b{word}\b" if latin else word),
            _link(verbs, latin=latin, choices=choices) if languages else _NEVER,
            _predicate(called, latin=latin),
            not any(language.point for language in languages),
        )
    return words


def _joined(languages: list[Language]) -> str:
    """Return the verbs of several languages, each once."""
    return "|".join(dict.fromkeys(verb for language in languages for verb in language.link.split("|")))


@cache
def _predicate(verbs: str, *, latin: bool) -> re.Pattern[str]:
    """Return a letter as the subject before the word for answer: "*B es la* respuesta", "*B是正确*答案"."""
    letter = r"(?<![^\W_])[(\[\"']{0,2}(?P<letter>[a-z])[)\]\"']{0,2}"
    words = rf"(?:(?!(?:{_DENIALS}))[^\W\d_]{{1,14}}[ ])"
    if latin:
        inverted = letter.replace("<letter>", "<inverted>")
        return re.compile(rf"{letter}[ ](?:{verbs})[ ]{words}{{0,3}}\Z|\b(?:{verbs})[ ]{inverted}[ ]{words}{{1,3}}\Z")
    inner = rf"(?:(?!{_DENIALS})[^\n.!?,;:=a-z0-9(\[{{\"'])"
    letter = letter.replace(r"(?<![^\W_])", "(?<![a-z0-9_])")  # no space stands between words
    return re.compile(rf"{letter}(?:[ ]?(?:{verbs})|:?[ ]){inner}{{0,12}}\Z")


#: "*C — правильный* ответ", in any language.
_DASHED: Final = re.compile(
    rf"(?<![{_LATIN}0-9_])[(\[\"']{{0,2}}(?P<letter>[a-z])[)\]\"']{{0,2}}[ ]?[—–-][ ]?"
    rf"(?:(?!{_DENIALS})[^\W\d_]{{1,14}}[ ]?){{0,3}}\Z"
)


def _link(verbs: str, *, latin: bool, choices: bool) -> re.Pattern[str]:
    if latin:
        between = rf"(?:[ ](?!(?:{_DENIALS}))[^\s.:=?!,;]{{1,24}}){{0,6}}?[\"'\s)\]]{{0,9}}"
        direct = r"|[ ](?=[(\[]?[a-z][)\].]?(?:[\s.,;:!']|\Z))" if choices else ""
        return re.compile(rf"{between}(?:(?<![^\W\d_])(?:{verbs})(?![^\W_]):?|-?[:=→>]|[—–-](?=[ ]){direct})")
    inner = rf"(?:(?!{_DENIALS})[^\n.!?,;:=a-z0-9(\[{{\"'])"
    if choices:
        return re.compile(rf"{inner}{{0,30}}+[:=,]?(?!{_DENIALS})")
    return re.compile(rf"{inner}{{0,16}}?(?:{verbs}|-?[:=→>]|[—–-](?=[ ]))")


def foreign_labels(lower: str, *, choices: bool) -> Iterator[Label]:
    """Yield the labels in a text in lower case that are not English, from the last to the first.

    With `choices` also those that introduce a letter alone ("Option", "Ich wähle").
    """
    return labels_of(lower, foreign_words(lower, choices))


def labels_of(lower: str, words: list[FoundWord]) -> Iterator[Label]:
    """Yield which of the words found in a text introduce something, as labels."""
    for start, end, word in words:
        if joined := word.link.match(lower, end, end + 240):
            filler = _FILLER.match(lower, joined.end())
            yield Label(start, filler.end() if filler else joined.end(), word.comma)


def predicates_of(lower: str, words: list[FoundWord]) -> Iterator[tuple[int, int]]:
    """Yield where a letter stands that one of the words found calls the answer, and the end of that."""
    for start, end, word in words:
        first = max(0, start - 60)
        if subject := word.predicate.search(lower, first, start) or _DASHED.search(lower, first, start):
            yield max(subject.start(name) for name in subject.groupdict()), end


def foreign_words(lower: str, choices: bool) -> list[FoundWord]:
    """Return where words that introduce an answer stand in other languages, from the last to the first."""
    ascii_only = lower.isascii()
    if ascii_only and has_any(lower, _ENGLISH) and not has_any(lower, _FREQUENT):
        return []
    found = [
        (match.start(), match.end(), word)
        for literal, word in _words(choices, ascii_only).items()
        if literal in lower
        for match in last_of(word.pattern.finditer(lower))
    ]
    return sorted(found, key=lambda each: (-each[0], each[1]))

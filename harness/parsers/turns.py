"""Where the model's own turn ends: everything after an invented next turn is not its answer.

Base models and models that miss their stop token go on with a new question and answer that one too; read without a
cut, the answer to the invented question is taken for the answer (sgl-project/sglang#29933). A model may restate its own
question, though, or split it into smaller ones: such a line is an invented turn only where an answer stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_SPEAKER: Final = (
    r"(?:question|query|human|user|instruction|problem|exercise|input|prompt"
    r"|pregunta|pergunta|frage|domanda|vraag|pytanie|fråga|soru|pertanyaan|soalan|câu[ ]hỏi|swali"
    r"|вопрос|запитання|питання|ερώτηση|السؤال|سؤال|سوال|प्रश्न|প্রশ্ন|คำถาม"
    r"|问题|题目|問題|題目|質問|질문|문제)"
)
_NUMBERED: Final = r"(?:[ \t]{0,9}(?:no\.?|\#)?[ \t]{0,9}(?P<number>\d{1,5}))?"
_COUNTED: Final = _NUMBERED.replace("?P<number>", "?P<counted>")
_HEADED: Final = _NUMBERED.replace("?P<number>", "?P<headed>")

# A line that opens a turn: "# Query:", "Question 2:", "**Q:**", "### Instruction:", "## Question", "Question 3."
_OPENING: Final = (
    rf"[ \t>*_\#]*+(?:(?:(?:new|next|another|follow-up)[ \t])?{_SPEAKER}{_NUMBERED}[ \t*_]{{0,9}}:"
    rf"|q{_COUNTED}[ \t*_]{{0,9}}:|q[ \t]?(?P<short>\d{{1,5}})[.)]"
    rf"|question[ \t]{{1,9}}(?P<asked>\d{{1,5}})(?:[.)]|[ \t]*+(?:\n|\Z)))"
)
_HEADING: Final = (
    rf"[ \t]{{0,9}}\#{{1,6}}[ \t]{{0,9}}[*_]{{0,3}}(?:the[ ])?{_SPEAKER}{_HEADED}[*_]{{0,3}}[ \t]*+(?:\n|\Z)"
)
_AT_START: Final = re.compile(rf"\s*+(?:{_OPENING}|{_HEADING})", re.IGNORECASE)
_ON_LINE: Final = re.compile(rf"\n(?:{_OPENING}|{_HEADING})", re.IGNORECASE)
_IN_LINE: Final = re.compile(r'[.!?)\]"`][ \t]{1,4}(?:Question|Human|User|Q)(?: \d{1,4})?:')
# What a model writes behind its own turn and never within it.
_HARD: Final = re.compile(
    r"\# Query:"
    r"|<(?:\|(?:im_end|eot_id|eom_id|eo[sdtm](?:_token)?|end_?of_?(?!thought|box|solution)[a-z]{1,12}|end|stop|pad"
    r"|return"
    r"|user|system|assistant|end▁of▁sentence)\|"
    r"|\|im_start\|>\s{0,4}(?:user|system|human)"
    r"|\|start_header_id\|>\s{0,4}(?:user|system)"
    r"|/s>|(?:eo[sdtm]|stop|end|pad)(?:_token|_id)?>|end_?of_?(?!thought|box|solution)[a-z]{1,12}>|turn\|>"
    r"|start_of_turn>\s{0,4}user)"
    r"|\[(?:/?INST|EOS|EOT|END|STOP|END_OF_TEXT|EOS_TOKEN)\]",
    re.IGNORECASE,
)
# A summary of many answers: what precedes it was one of several invented questions.
_RECAP: Final = re.compile(
    r"\n[ \t>*_#]*+(?:(?:now|finally|okay|ok|so|next)\b,?[ ])?(?:(?:let(?:'s|[ ]us|[ ]me)|we(?:[ ]can|'ll"
    r"|[ ]will)?|i'll|i[ ]will)[ ]"
    r"(?:now[ ])?)?(?:combine|summari[sz]e|recap|collect|gather|compile|list|put)\b"
    r"[^\n.:]{0,40}\banswers\b"
    r"|\n[ \t>*_#]*+(?:(?:a|the)[ ])?(?:summary|recap|list|compilation)[ ]of[ ](?:all[ ])?(?:the[ ])?answers\b"
    r"|\n[ \t>*_#]*+(?:(?:here[ ]are|these[ ]are)[ ])?all[ ](?:of[ ])?(?:the[ ])?answers\b",
    re.IGNORECASE,
)
_LINES: Final = re.compile(r"\n\s*+[^A-Za-z\u00c0-\u024f\n]{0,20}?(?=[\u0370-\ud7a3])")
#: A line in another language that answers, or draws a conclusion, is no new question.
_CONCLUDES: Final = re.compile(
    r"(?![^\n]*[?؟])[^\n]{0,24}?(?:答案|答え[はが:]|答:|正解|[故应我]选|选[a-j:]|因此|所以|综上|つまり|したがって|よって|답|따라서|그러므로|ответ"
    r"|следовательно|итак|поэтому|відповід"
    r"|отже|الإجابة|إذن|لذلك|उत्तर|इसलिए|उतर|উত্তর|তাই|คำตอบ|ดังนั้น|תשובה|לכן|پاسخ|جواب)",
    re.IGNORECASE,
)
_SCRIPTS: Final = re.compile(
    r"(?P<cyrillic>[\u0400-\u052f])|(?P<hebrew>[\u0590-\u05ff])"
    r"|(?P<arabic>[\u0600-\u06ff\u0750-\u077f])|(?P<indic>[\u0900-\u0dff])|(?P<thai>[\u0e00-\u0e7f])"
    r"|(?P<han>[\u3040-\u30ff\u3400-\u9fff])|(?P<hangul>[\uac00-\ud7a3])"
)
_ANSWER: Final = (
    r"(?:answer|a|response|output|solution|reasoning|explanation|assistant|答案|答え|解答|答|정답|답|ответ|решение|respuesta"
    r"|réponse"
    r"|antwort|resposta|risposta)"
)
_ANSWER_LINE: Final = re.compile(
    rf"(?:\n|[.?!][ ])[ \t>*_#]*+{_ANSWER}[ \t*_]{{0,9}}:|\n[ \t]*+#{{1,6}}[ \t]*+[*_]{{0,3}}(?:(?:the|my"
    rf"|final)[ ])?{_ANSWER}[*_:]{{0,4}}[ \t]*+(?=\n)",
    re.IGNORECASE,
)
_ANSWERED: Final = re.compile(
    r"####|\\boxed|\banswers?\b[^\n?]{0,60}?(?:\bis\b|:|=)|答案|答え|정답|ответ|respuesta|réponse|antwort|resposta|risposta",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(
    r"(?:\s*+(?:<s>|<\|?pad\|?>|<\|begin[_▁]of[_▁]\w{4,9}\|>|<bos>|<\|im_start\|>\s{0,4}assistant\b|<\|assistant\|>"
    r"|<\|start\|>\s{0,4}assistant\b"
    r"|<\|start_header_id\|>\s{0,4}assistant\s{0,4}<\|end_header_id\|>|<start_of_turn>\s{0,4}model\b|\[/INST\]"
    r"|assistant:))++",
    re.IGNORECASE,
)
_QUICK: Final = re.compile(r"[:#<\[]|[Qq]uestion|[Qq]\d|\n[ \t]*\n|\n\s*[Ll]et")
#: So many lines that may open a turn are looked at, each with so many characters before it: the work stays linear.
_MOST: Final = 12
_WINDOW: Final = 3000
#: A text of so many characters is a worked solution, with or without an answer that can be read.
_SOLUTION: Final = 400


def _always(_text: str) -> bool:
    return True


def first_turn(output: str, answers: Callable[[str], bool] = _always) -> str:
    """Return the part of a text that answers: the model's first turn.

    The turn ends at a special token that ends one (``<|eot_id|>``, ``</s>``, ``<EOS_TOKEN>``, …), at ``# Query:``, and,
    where an answer stands before it, at a line that opens another turn (``Question:``, ``Q:``, ``Human:``, ``User:``,
    ``### Instruction:`` and the like, numbered or not, in bold or not), at the same words after the end of a sentence,
    at a recap of "all the answers", and at a paragraph in another script. `answers` tells whether a text holds an
    answer. A question that the output opens with is restated: what stands behind it, or behind its ``Answer:``, is
    the turn; the next numbers of such a question ("Question 2:") split it and open no turn.

    >>> first_turn("18\\n\\nQuestion: John has 5 apples.\\nAnswer: 5")
    '18\\n'
    >>> first_turn("Question: 3 + 4?\\nAnswer: 7\\n\\nQuestion: 1 + 1?\\nAnswer: 2")
    ' 7\\n'
    >>> first_turn("In short:\\nQuestion: 3 + 4?\\nIt is 7.", lambda text: "7" in text)
    'In short:\\nQuestion: 3 + 4?\\nIt is 7.'
    """
    start, end = turn_span(output, answers)
    return output[start:end]


def turn_span(output: str, answers: Callable[[str], bool] = _always) -> tuple[int, int]:
    """Return where the first turn starts and ends; see `first_turn`."""
    if not _QUICK.search(output):
        return 0, len(output)
    start = 0
    if output.lstrip()[:1] in ("<", "[", "A", "a") and (header := _HEADER.match(output)):
        start = header.end()
    end = _hard_end(output, start)
    opening = _AT_START.match(output, start, end)
    if opening is None:
        return start, _soft_end(output, start, start, end, answers, 0)
    question_end = output.find("\n", opening.end() - 1, end)
    question_end = end if question_end < 0 else question_end
    number = _number(opening)
    behind = _ANSWER_LINE.search(output, opening.end() - 1, end)
    first = _ON_LINE.search(output, opening.end() - 1, end)
    if behind and not (first and first.start() < behind.start()):
        return behind.end(), _soft_end(output, behind.end(), behind.end(), end, answers, number)
    return question_end, _soft_end(output, question_end, question_end, end, answers, number)


def _hard_end(text: str, start: int) -> int:
    found = _HARD.search(text, start) if "<" in text or "[" in text or "#" in text else None
    return found.start() if found else len(text)


def _soft_end(text: str, start: int, since: int, end: int, answers: Callable[[str], bool], number: int) -> int:
    """Return where the turn ends that runs at `start`: at the first opening line behind an answer.

    What answers must stand behind `since`; `number` is that of the last question that was restated.
    """
    places: list[tuple[int, int, int]] = []  # where a turn may end, where that question's line ends, its number
    for found in _up_to(_ON_LINE, text, start, end):
        line_end = text.find("\n", found.end() - 1, end)
        places.append((found.start(), end if line_end < 0 else line_end, _number(found)))
    if ":" in text:
        places += [(found.start() + 1, found.end(), 0) for found in _up_to(_IN_LINE, text, start, end)]
    if "nswers" in text:
        places += [(found.start(), end, 0) for found in _up_to(_RECAP, text, start, end)]
    if (other := _other_script(text, start, end, answers)) is not None:
        places.append((other, end, 0))
    for place, line_end, counted in sorted(places):
        if place < since:
            continue
        before = text[max(since, place - _WINDOW) : place]
        if number and counted == number + 1 and not _ANSWERED.search(before):
            number = counted
        elif _answers(before, answers):
            return place
        else:
            number = counted or number
        since = max(since, line_end)
    return end


def _up_to(pattern: re.Pattern[str], text: str, start: int, end: int) -> list[re.Match[str]]:
    found = []
    for match in pattern.finditer(text, start, end):
        found.append(match)
        if len(found) == _MOST:
            break
    return found


def _answers(before: str, answers: Callable[[str], bool]) -> bool:
    """Tell whether the text before a question is an answer, and no restatement or introduction."""
    if not before.strip() or _INTRODUCTION.fullmatch(before.strip()):
        return False
    return len(before) > _SOLUTION or _ANSWERED.search(before) is not None or answers(before)


_INTRODUCTION: Final = re.compile(r"[^\n.!?]*:\s*\Z")


def _number(opening: re.Match[str]) -> int:
    written = opening.group("number", "counted", "short", "asked", "headed")
    return next((int(digits) for digits in written if digits), 0)


def _other_script(text: str, start: int, end: int, answers: Callable[[str], bool]) -> int | None:
    """Return where a line behind an answer begins in a script that nothing before it is written in."""
    if text.isascii():
        return None
    for found in _up_to(_LINES, text, start, end):
        script = _SCRIPTS.match(text, found.end(), end)
        if script is None or _CONCLUDES.match(text, found.end(), end):
            continue
        before = text[max(start, found.start() - _WINDOW) : found.start()]
        is_new = not any(each.lastgroup == script.lastgroup for each in _SCRIPTS.finditer(before))
        if is_new and (_ANSWERED.search(before) or answers(before)):
            return found.start()
    return None

"""Templates that would hang, eat memory or reach for Python: each is refused, soon, small and without a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import local_llms

SECONDS = 2.0
MEMORY = 256 * 1024 * 1024

LAUGHS = (
    "{% set ns = namespace(a=['lol'], b=['lol']) %}"
    "{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
)
DEEP = "{% set ns = namespace(a=[]) %}{% for i in range(90000) %}{% set ns.a = [ns.a] %}{% endfor %}"
DOUBLE = "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}"

HOSTILE = {
    # without an end
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a range of a trillion": "{% for a in range(10 ** 12) %}{% endfor %}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursion in two": "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a tree of calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(35) }}",
    "an endless recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a filtered loop": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "maps in a loop": "{% for a in range(99999) %}{% set x = range(9999) | map('string') | list %}{% endfor %}",
    # large text
    "a power": "{{ 2 ** 10 ** 9 }}{{ 10 ** (10 ** 6) }}",
    "powers of powers": "{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n ** 9 %}{% endfor %}",
    "text times a number": "{{ 'a' * 10 ** 10 }}",
    "a number times text": "{{ 10 ** 10 * 'a' }}",
    "a list times a number": "{{ [0] * 10 ** 9 }}",
    "doubling with +": DOUBLE + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubling with ~": DOUBLE + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubling with replace": DOUBLE + "{% set ns.s = ns.s.replace('a', 'aa') %}{% endfor %}",
    "doubling with format": DOUBLE + "{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
    "doubling with join": DOUBLE + "{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
    "doubling with a block": DOUBLE + "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    "a wide join": "{{ range(100000) | join('a' * 100000) }}",
    "wide padding with %": "{{ '%1000000000d' % 1 }}",
    "wide padding with format": "{{ '{:>1000000000}'.format(1) }}",
    "wide padding with a filter": "{{ 'a' | center(10 ** 9) }}",
    "wide padding with a method": "{{ 'a'.ljust(10 ** 9) }}",
    "wide JSON": "{{ [[[[1]]]] | tojson(indent=10 ** 9) }}",
    "a wide indent": "{{ ('a\n' * 9999) | indent(10 ** 9) }}",
    "much output": "{% for i in range(99999) %}" + "x" * 30000 + "{% endfor %}",
    "many pieces": "{% for i in range(99999) %}{% set x = ('a ' * 50000).split() %}{% endfor %}",
    # few values that are many
    "laughs shown": LAUGHS + "{{ ns.a }}",
    "laughs as JSON": LAUGHS + "{{ ns.a | tojson }}",
    "laughs compared": LAUGHS + "{{ ns.a == ns.b }}",
    "laughs ordered": LAUGHS + "{{ ns.a < ns.b }}",
    "laughs sorted": LAUGHS + "{{ [ns.a, ns.b] | sort }}",
    "laughs searched": LAUGHS + "{{ ns.a in [ns.b] }}",
    "laughs as a key": "{% set ns = namespace(a=(1,)) %}{% for i in range(40) %}"
    "{% set ns.a = (ns.a, ns.a) %}{% endfor %}{{ {ns.a: 1} }}",
    "a deep list": DEEP + "{{ ns.a }}",
    "a deep list as JSON": DEEP + "{{ ns.a | tojson }}",
    "long texts compared": "{% set a = 'a' * 100000 %}{{ (a[1:] ~ 'b') in [a] * 900000 }}",
    # Python
    "a class": "{{ ''.__class__.__mro__ }}",
    "a class by item": "{{ ''['__class__'] }}",
    "a class by filter": "{{ '' | attr('__class__') }}",
    "a class by map": "{{ [''] | map(attribute='__class__') | list }}",
    "a class by sort": "{{ [''] | sort(attribute='__class__') }}",
    "a class by format": "{{ '{0.__class__}'.format('') }}",
    "subclasses": "{{ messages.__class__.__base__.__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "globals of a class": "{{ namespace.__init__.__globals__['os'].system('touch trace') }}",
    "globals of a helper": "{{ cycler.__init__.__globals__.os.system('touch trace') }}",
    "the template itself": "{{ self._TemplateReference__context }}",
    "a macro's insides": "{% macro m() %}{% endmacro %}{{ m._scope }}",
    "a loop's insides": "{% for x in [1] %}{{ loop._items }}{% endfor %}",
    "a method's object": "{{ messages[0].items.__self__ }}",
    "much filler": "{{ lipsum(n=100000) }}",
    # other files
    "an import": "{% import 'os' as os %}",
    "a partial import": "{% from 'os' import system %}",
    "an include": "{% include '/etc/passwd' %}",
    "a parent": "{% extends '/etc/passwd' %}",
    # changes
    "a message more": "{{ messages.append({'role': 'system', 'content': 'obey'}) }}",
    "another role": "{{ messages[0].update({'role': 'system'}) }}",
    "no message": "{{ messages.clear() }}",
    "an attribute set": "{% set messages.x = 1 %}",
    # hard to read
    "brackets": "{{ " + "(" * 19000 + "1" + ")" * 19000 + " }}",
    "lists": "{{ " + "[" * 19000 + "]" * 19000 + " }}",
    "a long sum": "{{ 1" + "+1" * 19000 + " }}",
    "long negation": "{{ " + "not " * 9000 + "1 }}",
    "long attributes": "{{ messages" + ".a" * 19000 + " }}",
    "many filters": "{{ 'a'" + "|trim" * 7000 + " }}",
    "many tags": "{% if 1 %}" * 3900,
    "a huge number": "{{ " + "9" * 39000 + " }}",
    "too long": "a" * 1_000_000,
    "unfinished": "{{ '" + "\\'" * 19000,
    "no sense": "{% %}",
}

CHILD = textwrap.dedent(
    """
    import json, os, resource, sys, time

    from local_llms.catalog.schema import Template
    from local_llms.errors import TemplateError
    from local_llms.prompts import render

    hostile, memory = json.load(sys.stdin)
    messages = [{"role": "user", "content": "hi"}]
    events = []
    watched = ("open", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "exec", "import", "pty.", "tempfile.")

    def note(event, given):
        if event.startswith(watched):
            events.append(f"{event} {given!r}"[:200])

    def attempt(source):
        start = time.process_time()
        try:
            render(Template(name="hostile", source=source), messages)
            outcome = "accepted"
        except TemplateError as error:
            outcome = f"refused: {error}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"[:300]
        return {
            "outcome": outcome,
            "seconds": time.process_time() - start,
            "events": events[:9],
            "messages": messages,
            "trace": os.listdir("."),
        }

    # What Python itself loads at the first use is no side effect of a hostile template.
    for source in ("{{ messages[0].content | tojson }}{{ 'x' }}", "{{ 1 / 0 }}", "{% if %}", "{{ " + "(" * 9999):
        attempt(source)
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    results = {}
    for name, source in hostile.items():
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
            sys.addaudithook(note)
            text = json.dumps(attempt(source)).encode()
            os.write(writer, text)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            text = pipe.read()
        status = os.waitpid(child, 0)[1]
        results[name] = json.loads(text) if text else {"outcome": f"died with status {status}"}
    json.dump(results, sys.stdout)
    """
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is bounded with the means of Linux")
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps([HOSTILE, MEMORY]),
        cwd=tmp_path_factory.mktemp("nowhere"),
        env={**os.environ, "PYTHONPATH": str(Path(local_llms.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def test_there_are_many() -> None:
    assert len(HOSTILE) >= 30


@pytest.mark.parametrize("name", HOSTILE)
def test_is_refused(name: str, results: dict[str, dict[str, Any]]) -> None:
    result = results[name]
    assert result["outcome"].startswith("refused: The template 'hostile' cannot be carried out"), result["outcome"]
    assert result["seconds"] < SECONDS
    assert result["events"] == []
    assert result["messages"] == [{"role": "user", "content": "hi"}]
    assert result["trace"] == []

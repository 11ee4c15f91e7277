"""Chat templates with the constructs of real ones, in words of our own; and expressions for comparison with Jinja's."""

# As models of many families have it since ChatML.
CHATML = r"""
{%- for turn in messages %}
    {{- '<|im_start|>' ~ turn.role ~ '\n' }}
    {{- turn.content ~ '<|im_end|>' + "\n" -}}
{% endfor %}
{% if add_generation_prompt -%}
    {{ '<|im_start|>assistant\n' }}
{%- endif %}
"""

# Llama 2: the system message stands in the first question; roles must alternate.
LLAMA2 = r"""
{%- if messages[0]['role'] == 'system' %}
    {%- set turns = messages[1:] %}
    {%- set frame = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}
{%- else %}
    {%- set turns = messages %}
    {%- set frame = false %}
{%- endif %}
{%- for turn in turns %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Questions and answers must take turns, beginning with a question.') }}
    {%- endif %}
    {%- if loop.index0 == 0 and frame %}
        {%- set said = frame + turn['content'] %}
    {%- else %}
        {%- set said = turn['content'] %}
    {%- endif %}
    {%- if turn['role'] == 'user' %}
        {{- bos_token + '[INST] ' + said.strip() + ' [/INST]' }}
    {%- elif turn['role'] == 'assistant' %}
        {{- ' ' + said | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
"""

# Llama 3.1 and its successors: a date, tools that may stand in either message, calls of tools, results.
LLAMA3 = r"""
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 Jan 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message comes first, whatever the data says. -#}
{%- macro head(role) -%}
    {{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' }}
{%- endmacro %}
{%- if messages[0]['role'] == 'system' %}
    {%- set rules = messages[0]['content'] | trim if messages[0]['content'] is string else messages[0]['content'][0]['text'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set rules = "" %}
{%- endif %}
{{- head('system') }}
{%- if tools is not none %}
    {{- "Runs: code\n" }}
{%- endif %}
{{- "Known until: Spring 2023\n" }}
{{- "This day: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "These can be called:\n\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- rules }}
{{- "<|eot_id|>" }}

{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content'] | trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Tools need a question to stand in.") }}
    {%- endif %}
    {{- head('user') -}}
    {%- for tool in tools %}{{- tool | tojson(indent=4) ~ "\n\n" }}{%- endfor %}
    {{- first + "<|eot_id|>" }}
{%- endif %}

{%- for turn in messages %}
    {%- if not (turn.role == 'ipython' or turn.role == 'tool' or 'tool_calls' in turn) %}
        {{- head(turn.role) }}
        {%- if turn.content is string %}
            {{- turn.content | trim }}
        {%- else %}
            {%- for part in turn.content %}
                {%- if part.type == 'text' %}
                    {{- part.text | trim }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '<|eot_id|>' }}
    {%- elif 'tool_calls' in turn %}
        {%- set call = turn.tool_calls[0].function %}
        {{- head('assistant') -}}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {{- head('ipython') }}
        {%- if turn.content is mapping or turn.content is iterable %}
            {{- turn.content | tojson }}
        {%- else %}
            {{- turn.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- head('assistant') }}
{%- endif %}
"""

# Mistral: turns are counted without the system message, which stands in the first question.
MISTRAL = r"""
{%- if messages[0]["role"] == "system" %}
    {%- set rules = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- set asked = turns | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for turn in turns %}
    {%- if not (turn.role == "tool" or (turn.tool_calls is defined and turn.tool_calls is not none)) %}
        {%- if (turn["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Roles must go user, assistant, user, assistant, and so on") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for turn in turns %}
    {%- if turn["role"] == "user" %}
        {%- if loop.first and rules is defined and asked | length > 0 %}
            {{- "[INST] " + rules + "\n\n" + turn["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + turn["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif turn["role"] == "assistant" %}
        {{- " " + turn["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only users and assistants speak here, not " ~ turn["role"] ~ "!") }}
    {%- endif %}
{%- endfor %}
"""

# Zephyr: one line after another, with what `trim_blocks` leaves.
ZEPHYR = r"""{% for turn in messages %}
{% if turn['role'] == 'user' %}
{{ '<|user|>\n' + turn['content'] + eos_token }}
{% elif turn['role'] == 'system' %}
{{ '<|system|>\n' + turn['content'] + eos_token }}
{% elif turn['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + turn['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""

# SmolLM2: ChatML, with rules of its own where the data has none.
SMOLLM2 = r"""{% for turn in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You answer briefly, and are kind<|im_end|>
' }}{% endif %}{{'<|im_start|>' + turn['role'] + '
' + turn['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

# With blocks that say what the model writes.
GENERATION = r"""
{%- for turn in messages %}
    {%- set opening = '<|im_start|>' + turn.role + '\n' %}
    {{- opening }}
    {%- if turn.role == 'assistant' %}
        {%- generation %}
            {%- for part in turn.content.split('\n') %}
                {{- ('\n' if not loop.first else '') + part }}
            {%- endfor %}
            {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\n' }}
    {%- else %}
        {{- turn.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

# The same without control of blanks, where `trim_blocks` and `lstrip_blocks` act on the blocks.
GENERATION_LINES = """{% for turn in messages %}
  {% if turn.role == 'assistant' %}
Says:
    {% generation %}
  {{ turn.content }}.
    {%- endgeneration %}

  {% else %}
Asks: {{ turn.content }}
  {% endif %}
{% endfor %}
"""

# name -> (template, the models whose tokenizers are used)
TEMPLATES = {
    "chatml": (CHATML, ["smollm2-tied", "llama2-bf16"]),
    "llama2": (LLAMA2, ["llama2-bf16", "mistral"]),
    "llama3": (LLAMA3, ["llama3-gqa"]),
    "mistral": (MISTRAL, ["mistral"]),
    "zephyr": (ZEPHYR, ["tinyllama-gqa"]),
    "smollm2": (SMOLLM2, ["smollm2-tied"]),
    "generation": (GENERATION, ["smollm2-tied", "llama2-bf16"]),
    "generation-lines": (GENERATION_LINES, ["smollm2-tied"]),
}

# name -> messages
CONVERSATIONS = {
    "one-turn": [("user", "Who mends the nets?"), ("assistant", "Ilka does, in the boathouse.")],
    "system": [
        ("system", "Answer in one sentence.  "),
        ("user", " Where does the ferry stop? "),
        ("assistant", "At the mill.\n"),
    ],
    "several-turns": [
        ("system", "You know the valley."),
        ("user", "Is the bridge open?"),
        ("assistant", "Yes, since May."),
        ("user", "And the road\nto the quarry?"),
        ("assistant", "Not before the thaw.\n\nAsk again in 14 days."),
    ],
    "unicode": [
        ("user", "Wie heißt die Straße? 漢字 🦊 <b> & \"c\""),
        ("assistant", "Ægirsgata — número 7, “Ó’Brien” 🏔️"),
    ],
    "ends-with-user": [
        ("user", "Two?"), ("assistant", "2."), ("user", "Three?"), ("assistant", "3."), ("user", "Four?"),
    ],
    "control": [("user", "Write </s> and <|im_end|>."), ("assistant", "<s>[INST] {{ x }} {% y %}")],
}

# Templates of a line each, for one conversation.
EXPRESSIONS = [
    "{{ messages | tojson }}",
    "{{ messages[1] | tojson(indent=2) }}",
    "{{ messages[1] | tojson(indent=None, separators=(',', ':'), sort_keys=True) }}",
    "{{ messages | tojson(ensure_ascii=True) }}",
    "{{ {'a': [], 'b': {}, 'c': [1, 2.0, none, true]} | tojson(indent=4) }}",
    "{{ '<&>\\'' | tojson }}{{ \"\\x7f\\t\\x01\" | tojson }}",
    "{{ [1, 'a', none, true, 1.5, {'k': \"it's\"}] }}",
    "{{ none }}{{ true }}{{ 1.0 }}{{ 10 / 4 }}{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % 3 }}{{ 2 ** 5 }}",
    "{{ 1 ~ 2 + 3 ~ 4 if false else 'a' ~ 1 + '2' ~ 3 }}",
    "{{ missing }}|{{ missing is defined }}|{{ missing is none }}|{{ missing | default('d') }}|{{ missing ~ 'x' }}",
    "{{ messages[0].missing is defined }}{{ messages[9] is defined }}{{ messages[-1].role }}",
    "{{ messages[0].get('missing', 'none') }}{{ messages[0].get('role') }}{{ 'role' in messages[0] }}",
    "{{ messages | length }}{{ messages[0] | length }}{{ messages[1].content | length }}",
    "{{ messages[1:] | length }}{{ messages[:-1] | length }}{{ messages[::-1][0].role }}",
    "{{ messages[1].content[:4] }}|{{ messages[1].content[-4:] }}|{{ messages[1].content[::2] }}",
    "{{ messages | map(attribute='role') | join('+') }}|{{ messages | map(attribute='role') | list }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | rejectattr('role', 'in', ['user']) | list | length }}",
    "{{ messages | selectattr('role', 'eq', 'user') | map(attribute='content') | first }}",
    "{{ (messages | last).role }}{{ messages[0]['content'].upper() }}{{ messages[0]['content'] | lower }}",
    "{{ ' a b '.strip() }}|{{ ' a b '.lstrip() }}|{{ ' a b '.rstrip() }}|{{ 'xxaxx'.strip('x') }}",
    "{{ 'a</think>b</think>c'.split('</think>')[-1] }}|{{ 'a b  c'.split() }}|{{ 'a,b,c'.split(',', 1) }}",
    "{{ 'abc'.startswith('a') }}{{ 'abc'.endswith(('b', 'c')) }}{{ 'abc'.find('c') }}{{ 'abab'.count('ab') }}",
    "{{ 'a-b-a'.replace('a', 'x') }}{{ 'a-b-a'.replace('a', 'x', 1) }}{{ 'a-b' | replace('-', '+') }}",
    "{{ 'ab cd'.title() }}{{ 'ab cd'.capitalize() }}{{ 'ab cd' | title }}{{ 'AB cd' | capitalize }}",
    "{{ ', '.join(['a', 'b']) }}{{ 'a\nb\n'.splitlines() }}{{ '12'.isdigit() }}",
    "{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'x-suffix'.removesuffix('-suffix') }}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{{ messages[0].keys() | list }}",
    "{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}{% for k in {'b': 1, 'a': 2} %}{{ k }}{% endfor %}",
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }} {% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else '-' }}>{{ loop.nextitem.role if not loop.last }};{% endfor %}",
    "{% for m in messages if m.role != 'user' %}{{ loop.index }}{{ m.role }}{% else %}none{% endfor %}",
    "{% for m in [] %}{% else %}none{% endfor %}{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% set ns = namespace(found=false, all=[]) %}{% for m in messages %}{% set ns.found = true %}{% set ns.all = ns.all + [m.role] %}{% endfor %}{{ ns.found }}{{ ns.all }}",
    "{% set x = 1 %}{% for m in messages %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c %}[{{ a }}]{% endset %}{{ c }}{% set d | upper %}x{% endset %}{{ d }}",
    "{% macro m(x, y='d', z=none) -%} <{{ x }}{{ y }}{{ z }}> {%- endmacro %}{{ m(1) }}{{ m(1, z=3) }}{{ m(1, 2) }}",
    "{% macro m() %}({{ caller() }}){% endmacro %}{% call m() %}inside{% endcall %}{% filter upper %}abc{% endfilter %}",
    "{{ 'a' is string }}{{ 1 is number }}{{ 1 is integer }}{{ 1.5 is float }}{{ true is boolean }}{{ none is none }}{{ true is true }}{{ 3 is odd }}",
    "{{ messages is iterable }}{{ messages is sequence }}{{ messages is mapping }}{{ messages[0] is mapping }}{{ messages[0] is iterable }}",
    "{{ 'a' is iterable }}{{ 'a' is sequence }}{{ none is iterable }}{{ 1 is iterable }}{{ missing is iterable }}{{ 'a' in 'abc' }}{{ 'd' not in 'abc' }}",
    "{{ not messages }}{{ messages and 'yes' }}{{ '' or 'or' }}{{ 1 if '' else 2 }}{{ 1 < 2 and 2 <= 2 }}{{ 'a' < 'b' }}{{ 1 == 1.0 }}{{ 1 != '1' }}",
    "{{ [1, 2] + [3] }}{{ (1, 2)[0] }}{{ [3, 1, 2] | sort }}{{ [1, 1, 2] | unique | list }}{{ [1, 2] | sum }}{{ [1, 2] | max }}{{ 'ab' | list }}{{ 'ab' | reverse }}",
    "{{ '3' | int + 1 }}{{ 3.7 | int }}{{ 3 | string + 'x' }}{{ 3.14159 | round(2) }}{{ -3 | abs }}{{ '-' * 5 }}{{ [0] * 3 }}",
    "{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(width=1, blank=True) }}",
    "{{ '  x ' | trim }}|{{ ['a', 'b'] | join }}|{{ [1, none, true] | join(',') }}|{{ messages[0].content | trim | length }}",
    "{{ dict(a=1, b='x') }}{{ dict(a=1).a }}{{ {'a': 1}.items() | list | length }}",
    "{{ 'caf\\u00e9 \\x41 \\'q\\' \\\\ \\\" \\d \\101' }}{{ 'a' 'b' }}{{ '\\U0001f98a' }}",
    "  {% if true %}\n  a\n  {% endif %}\n  b\n{# comment #}\n  {# another #}  \nc {%- if true %} d {%+ endif %}  e\n\n",
    "a\r\nb\rc\n{% raw %}{{ x }} {% y %}{% endraw %}{{ '{{ y }}' }}{{- ' z ' -}} w",
    "{%- set x = 'a' -%}\n  {{ x }}  {{- x -}}  {{ x }}\n",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ [[1, 2], [3]] | map('length') | list }}{{ [1, 2] | map('string') | join }}",
    "{{ strftime_now('%d %B %Y|%b %y|%m|%H:%M:%S|%A %a|%j|%Y-%m-%d|%I %p|%-d %-m|%e|%%') }}",
    "{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}{{ add_generation_prompt }}{{ tools }}{{ documents is none }}",
    "{{ messages[1].content.split('—')[0].strip() ~ '.' }}{{ ('a' ~ 'b').upper() }}{{ ['x'][0].upper() }}",
    "{% for m in messages recursive %}{{ m.role }}{% endfor %}{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}",
    "{% if messages[0].role == 'user' and not (messages[1].role != 'assistant' or false) %}yes{% elif true %}no{% else %}never{% endif %}",
    "{{ 'abc'[0] }}{{ 'äbc'[-3] }}{{ messages[0].content[0] }}{{ messages[0]['content'][1] }}{{ 'ab'[5] is defined }}",
    "{% set i = 1 %}{{ messages[i]['role'][0].upper() }}{{ messages[i - 1].content[i:][0] }}{{ {'a': [7]}['a'][0] + 1 }}{{ [[1, 2], [3]][0][-1] }}{{ messages[{'k': [1]}['k'][0]][messages[0].keys() | first] }}",
    "{{ 1e16 }}{{ 1e-7 }}{{ 123456789.125 }}{{ 0.1 + 0.2 }}{{ 1_000 }}{{ 10000000000 * 10000000000 }}",
]

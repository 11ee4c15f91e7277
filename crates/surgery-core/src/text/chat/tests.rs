use super::*;

fn template(source: &str) -> Result<ChatTemplate, String> {
    let tokens = [("bos_token".to_owned(), "<s>".to_owned())].into();
    ChatTemplate::of_source("t.jinja".into(), source, tokens).map_err(|error| error.to_string())
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: MessageContent::Text(content.into()) }
}

/// A template's rendering of a question and an answer.
fn rendered(source: &str) -> Result<Rendered, String> {
    let messages = [message("user", "Wer?"), message("assistant", " Å's “x” ")];
    template(source)?.render(&messages, false).map_err(|error| error.to_string())
}

#[track_caller]
fn renders(source: &str, expected: &str) {
    assert_eq!(rendered(source).unwrap().text, expected, "{source}");
}

#[test]
fn expressions_are_those_of_jinja() {
    renders("{{ bos_token }}{{ missing }}{{ none }}{{ true }}{{ tools is none }}\n", "<s>NoneTrueTrue");
    renders("{{ 'a' ~ 1 + 2 ~ \"b\" \"c\" }}|{{ -1 + 2 * 3 }}|{{ 2 ** 3 * 2 }}", "a12bc|5|16");
    renders("{{ messages[0]['role'] == 'user' and 'content' in messages[0] }}", "True");
    renders(
        "{{ 'x' not in ['y', 'z'] }}{{ (1, 2)[1] }}{{ [1, 2, 3][1:] }}{{ 'abc'[::-1] }}",
        "True2[2, 3]cba",
    );
    renders("{{ messages[-1].content.strip() | upper }}", "Å'S “X”");
    renders("{{ messages[1:] | map(attribute='role') | join(', ') }}", "assistant");
    renders("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1");
    renders("{{ 'a-b-c'.split('-')[-1] }}{{ {'a': [1, {}]}['a'] | tojson }}", "c[1, {}]");
    renders("{{ messages[1] | tojson }}", r#"{"role": "assistant", "content": " Å's “x” "}"#);
    renders(r#"{{ "\u00e5\x41\n\'\d\101" }}{{ '{{ %} }}' }}"#, "åA\n'\\dA{{ %} }}");
    renders("{% raw %}{{ x }}{% endraw %}{# {{ #}|{{ {'a': {'b': 1}}['a']['b'] }}", "{{ x }}|1");
    renders(
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "2",
    );
    renders(
        "{% for m in messages if m.role != 'user' %}{{ loop.index }}{{ loop.previtem is defined }}{% endfor %}",
        "1False",
    );
    renders(
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
        "user",
    );
    renders("{% macro m(x, y='a' ~ 'b') %}{{ x ~ y }}{% endmacro %}{{ m(1) }}{{ m(1, y=2) }}", "1ab12");
    renders("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "role=user;content=Wer?;");
    renders(
        "{{ 'x' is sequence }}{{ none is iterable }}{{ messages is iterable }}{{ messages[0] is mapping }}",
        "TrueFalseTrueTrue",
    );
    renders(
        "{{ 3 if messages else 4 }}{{ 'yes' if 1 is not string }}{{ '-' * 3 }}{{ not true == false }}",
        "3yes---True",
    );
    renders("  {% if true %}\n    a\n  {%- endif %}\n b {{- 'c' }}\n", "    a bc");
}

#[test]
fn the_bytes_of_generation_blocks_are_found() {
    let source = "{% for m in messages %}\n{{ '<' + m.role + '>' }}\n{% if m.role == 'assistant' %}\n  {%- generation -%}\n\
                  {{ m.content }}\n{{ '</s>' }}\n  {% endgeneration %}\n{% endif %}{% endfor %}!";
    let found = rendered(source).unwrap();
    assert_eq!(found.text, "<user>\n<assistant>\n Å's “x” \n</s>\n!");
    assert_eq!(found.generated, [19..found.text.len() - 1]);
    assert!(template(source).unwrap().has_generation());
    assert!(!template("{{ messages }}").unwrap().has_generation());
}

#[test]
fn errors_of_a_template_name_its_file() {
    let cases = [
        ("{{ raise_exception('no ' ~ messages[0].role) }}", "t.jinja: refuses the messages: no user"),
        ("{% if %}", "t.jinja: is not a template: syntax error"),
        ("{{ 'a", "t.jinja: has a string without an end (line 1)"),
        ("\n{{ (1 }}", "t.jinja: has a tag without an end (line 2)"),
        ("{% include 'x' %}", "t.jinja: has a tag `include`"),
        ("{{ messages[0].a.b }}", "t.jinja: cannot be rendered: undefined value"),
        ("{{ messages[0].content.frob() }}", "t.jinja: cannot be rendered: unknown method"),
        ("{{ strftime_now('%Q') }}", "%Q"),
        ("{{ 1 | frob }}", "unknown filter"),
    ];
    for (source, expected) in cases {
        let message = rendered(source).unwrap_err();
        assert!(message.contains(expected), "{source}: {message}");
    }
}

#[test]
fn a_hostile_template_is_an_error() {
    let doubled = "{% set x = x ~ x %}".repeat(64);
    let nested = "{% set x = [x, x] %}".repeat(64);
    let loops = "{% for i in range(99999) %}".repeat(4) + &"{% endfor %}".repeat(4);
    let literal = "x".repeat(100_000);
    let cases = [
        format!("{{% set x = 'aaaaaaaa' %}}{doubled}"),
        format!("{{% set x = 1 %}}{nested}{{{{ x }}}}"),
        format!("{{% set x = [] %}}{nested}{{% set y = x == x %}}"),
        loops,
        "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('ab') }}".into(),
        "{% macro m(x) %}{{ m([x, x]) == m([x]) }}{% endmacro %}{{ m(1) }}".into(),
        "{% macro m() %}{{ m() ~ m() }}{% endmacro %}{{ m() }}".into(),
        "{% set n = namespace(a=1) %}{% for i in range(99999) %}{% set n.a = [n.a] %}{% endfor %}".into(),
        "{% set n = namespace() %}{% set n.n = n %}{{ n }}".into(),
        "{% set n = namespace(l=[1]) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}".into(),
        "{{ (range(99999) * 99999 * 99999) | list | length }}".into(),
        "{{ 'x' * 99999999 * 99 }}".into(),
        "{% for i in range(99999) %}{% if 'x' * 99999999 == 'y' %}{% endif %}{% endfor %}".into(),
        "{% set x = 'a' * 99999 %}{{ x.replace('', x.replace('', x)) }}".into(),
        "{% set x = 'a' * 99999 %}{{ x | replace('a', x) | length }}".into(),
        "{% set x = ' ' * 99999 %}{% for i in range(99999) %}{% if x[0:9999] == 'a' %}{% endif %}{% endfor %}".into(),
        "{% set x = ' ' * 99999 %}{% for i in range(99999) %}{% if x.strip() %}{% endif %}{% endfor %}".into(),
        "{% set x = 'a' * 99999 %}{% for i in range(99999) %}{% for c in x %}{% break %}{% endfor %}{% endfor %}".into(),
        "{{ '{:99999999999}'.format(1) }}".into(),
        "{{ messages | tojson(indent=999999999) }}".into(),
        format!("{{% set x %}}{{% for i in range(99999) %}}{literal}{{% endfor %}}{{% endset %}}"),
        format!("{{% for i in range(99999) %}}{literal}{{% endfor %}}"),
        "{{ ".to_owned() + &"(".repeat(100_000) + &")".repeat(100_000) + " }}",
        "{{ ".to_owned() + &"[".repeat(100_000) + &"]".repeat(100_000) + " }}",
        "{% if 1 %}".repeat(20_000) + &"{% endif %}".repeat(20_000),
        "{% if 0 %}".to_owned() + &"{% elif 0 %}".repeat(60_000) + "{% endif %}",
        "{% if 0 %}".to_owned() + &"{% elif 0 %}".repeat(290) + "{% endif %}",
        "{{ ".to_owned() + &"-".repeat(900) + "1 }}",
        "{{ ".to_owned() + &"not ".repeat(900) + "1 }}",
        "{{ 1".to_owned() + &" ~ 1".repeat(490) + " }}",
        "{{ 1".to_owned() + &" if 1 else 1".repeat(240) + " }}",
        "{{ 1".to_owned() + &"|abs".repeat(490) + " }}",
        "{{ ".to_owned() + &"-".repeat(100_000) + "1 }}",
        "{{ ".to_owned() + &"not ".repeat(100_000) + "1 }}",
        "{{ 1".to_owned() + &" ~ 1".repeat(100_000) + " }}",
        "{{ 1".to_owned() + &" if 1 else 1".repeat(60_000) + " }}",
        "{{ 1".to_owned() + &"|abs".repeat(60_000) + " }}",
        "{{ x".to_owned() + &".x".repeat(60_000) + " }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into(),
        "{% block a %}{{ self.a() }}{% endblock %}".into(),
    ];
    for source in cases {
        let began = std::time::Instant::now();
        let outcome = rendered(&source);
        let shown: String = source.chars().take(80).collect();
        // Some long templates can be rendered.
        assert!(outcome.is_err() || source.len() > 900, "{shown}");
        assert!(began.elapsed().as_secs() < 60, "{shown}");
    }
}

#[test]
fn the_template_is_read_from_the_same_files_as_in_transformers() {
    let load = |files: &[(&'static str, &'static str)]| {
        let files = files.iter().map(|(name, content)| (*name, content.as_bytes())).collect();
        let folder = Folder::Embedded { name: "m".into(), files };
        let template = ChatTemplate::load(&folder, BTreeMap::new()).map_err(|error| error.to_string())?;
        Ok::<_, String>(
            template.map(|template| (template.path.clone(), template.render(&[], true).unwrap().text)),
        )
    };
    let of = |path: &str, text: &str| Ok(Some((path.to_owned(), text.to_owned())));
    assert_eq!(load(&[]), Ok(None));
    assert_eq!(load(&[(SETTINGS, r#"{"chat_template": null}"#)]), Ok(None));
    let in_settings = (SETTINGS, r#"{"chat_template": "b"}"#);
    assert_eq!(load(&[in_settings]), of("m/tokenizer_config.json", "b"));
    assert_eq!(load(&[in_settings, (FILE, "a\n")]), of("m/chat_template.jinja", "a"));
    let list =
        r#"{"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]}"#;
    assert_eq!(load(&[(SETTINGS, list)]), of("m/tokenizer_config.json", "y"));
    for wrong in [r#"{"chat_template": 3}"#, r#"{"chat_template": [{"name": "x", "template": "y"}]}"#] {
        assert!(
            load(&[(SETTINGS, wrong)])
                .unwrap_err()
                .starts_with("m/tokenizer_config.json: `chat_template` is")
        );
    }
}

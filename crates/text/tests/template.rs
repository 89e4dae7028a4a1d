//! Templates: where they come from, whose fault an error is, and that none can hang or eat memory.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
use mlx_serving_text::{ChatInput, ChatTemplate, TemplateError};
use serde_json::{Value, json};

fn render(source: &str, messages: &Value) -> Result<String, TemplateError> {
    let template = ChatTemplate::new(source, &[("bos_token", "<s>".into()), ("eos_token", "</s>".into())])?;
    template.render(&ChatInput::new(messages.as_array().unwrap()))
}

fn text(source: &str) -> String {
    render(source, &json!([{"role": "user", "content": "hi"}])).unwrap()
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

/// The template of a folder that has one.
fn of(files: &[(&str, &str)]) -> ChatTemplate {
    ChatTemplate::from_dir(folder(files).path(), None).unwrap().unwrap()
}

#[test]
fn whitespace_around_blocks_is_trimmed() {
    assert_eq!(
        text("{% for m in messages %}\n    {% if true %}\n  x\n    {% endif %}\n{% endfor %}\nend\n"),
        "  x\nend"
    );
}

#[test]
fn line_ends_are_line_feeds_whoever_wrote_the_file() {
    assert_eq!(text("a\r\n{% if true %}\r\nb\r\n{% endif %}\rc"), "a\nb\nc");
}

#[test]
fn special_tokens_and_the_generation_prompt_are_variables() {
    let source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{% if add_generation_prompt %}A:{% endif %}";
    assert_eq!(text(source), "<s>hi</s>A:");
}

#[test]
fn python_methods_slices_namespaces_and_loop_controls_work() {
    assert_eq!(text("{{ ' a-b '.strip().split('-')[-1].upper() }}{{ 'x'.startswith('x') }}"), "BTrue");
    assert_eq!(
        text("{% set d = {'b': 1, 'a': none} %}{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}"),
        "b1aNone"
    );
    assert_eq!(text("{{ {'a': 1}.get('z', 'none') }}{{ [1, 2, 3][::-1] }}"), "none[3, 2, 1]");
    let counting = "{% set n = namespace(i=0) %}{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}\
                    {% if x > 4 %}{% break %}{% endif %}{% set n.i = n.i + x %}{% endfor %}{{ n.i }}";
    assert_eq!(text(counting), "8");
}

#[test]
fn tojson_is_pythons() {
    let messages = json!([{"b": [1, 2.0, true, null, "é<&'\n\u{1}"], "a": {}}]);
    let render = |source| render(source, &messages).unwrap();
    assert_eq!(render("{{ messages[0] | tojson }}"), r#"{"b": [1, 2.0, true, null, "é<&'\n\u0001"], "a": {}}"#);
    assert_eq!(
        render("{{ messages[0] | tojson(indent=2) }}"),
        "{\n  \"b\": [\n    1,\n    2.0,\n    true,\n    null,\n    \"é<&'\\n\\u0001\"\n  ],\n  \"a\": {}\n}"
    );
    assert_eq!(
        render("{{ messages[0] | tojson(sort_keys=true, ensure_ascii=true, separators=(',', ':')) }}"),
        r#"{"a":{},"b":[1,2.0,true,null,"\u00e9<&'\n\u0001"]}"#
    );
    assert_eq!(
        render("{{ {1: 'x', true: 'y', 1.5: '🦀'} | tojson(ensure_ascii=true) }}"),
        r#"{"1": "y", "1.5": "\ud83e\udd80"}"#
    );
}

#[test]
fn generation_tags_print_nothing() {
    assert_eq!(text("a {%- generation -%} b {% endgeneration %} c {{ '{% ' }}"), "ab  c {% ");
}

#[test]
fn strftime_now_gives_this_year() {
    let year: i16 = text("{{ strftime_now('%Y') }}").parse().unwrap();
    assert!(year >= 2024);
}

#[test]
fn kwargs_are_variables_and_cannot_replace_the_messages() {
    let template = ChatTemplate::new("{{ enable_thinking }} {{ bos_token }} {{ tools is none }}", &[]).unwrap();
    let kwargs = json!({"enable_thinking": false, "bos_token": "B"});
    let input = ChatInput { kwargs: kwargs.as_object(), ..ChatInput::new(&[]) };
    assert_eq!(template.render(&input).unwrap(), "False B True");
    let kwargs = json!({"messages": []});
    let error = template.render(&ChatInput { kwargs: kwargs.as_object(), ..input }).unwrap_err();
    assert!(matches!(error, TemplateError::Reserved { name: "messages" }) && error.is_client_error());
}

#[test]
fn raise_exception_is_the_clients_error_with_the_templates_words() {
    let source = "{% macro check(m) %}{% if m.role != 'system' %}{{ raise_exception('start with system') }}{% endif %}\
                  {% endmacro %}{{ check(messages[0]) }}";
    let error = render(source, &json!([{"role": "user"}])).unwrap_err();
    assert!(matches!(&error, TemplateError::Refused { message } if message == "start with system"), "{error}");
    assert!(error.is_client_error());
}

#[test]
fn a_failure_of_the_template_is_not_blamed_on_the_messages() {
    for fault in ["m.content + 'x'", "m.role.nope()", "m.role | nope", "m.role is nope", "nope()", "1 / 0", "m.x.y"] {
        let source = format!("{{% for m in messages %}}\n{{{{ {fault} }}}}\n{{% endfor %}}");
        let error = render(&source, &json!([{"role": "a"}])).unwrap_err();
        assert!(matches!(error, TemplateError::Failed { line: 2, .. }) && !error.is_client_error(), "{error}");
        let words = error.to_string();
        assert!(words.contains("the template's fault") && words.contains("--chat-template"), "{words}");
        assert!(!words.contains("check that every message"), "{words}");
    }
}

#[test]
fn a_failure_by_the_requests_variables_is_blamed_on_them() {
    let template = ChatTemplate::new("a\n{{ 'x' + suffix if suffix else 'x' }}", &[]).unwrap();
    let render = |kwargs: Value| template.render(&ChatInput { kwargs: kwargs.as_object(), ..ChatInput::new(&[]) });
    assert_eq!(render(json!({"suffix": "y"})).unwrap(), "a\nxy");
    let error = render(json!({"suffix": 7})).unwrap_err();
    assert!(matches!(error, TemplateError::Variables { line: 2, .. }) && error.is_client_error(), "{error}");

    let source = "\n{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}";
    let (template, messages) = (ChatTemplate::new(source, &[]).unwrap(), [json!({"role": "system"})]);
    let kwargs = json!({"raise_exception": 1});
    let error = template.render(&ChatInput { kwargs: kwargs.as_object(), ..ChatInput::new(&messages) }).unwrap_err();
    assert!(matches!(error, TemplateError::Variables { line: 2, .. }) && error.is_client_error(), "{error}");
}

#[test]
fn a_template_at_fault_is_loaded_and_tells_its_fault_with_file_and_way_out() {
    let template = of(&[("chat_template.jinja", "fine\n{% if %}")]);
    for error in [template.check(false).unwrap_err(), template.render(&ChatInput::new(&[])).unwrap_err()] {
        let words = error.to_string();
        assert!(matches!(error, TemplateError::Broken { line: 2, .. }) && !error.is_client_error(), "{words}");
        assert!(words.contains("chat_template.jinja") && words.contains("--chat-template FILE"), "{words}");
    }
    let words = of(&[("tokenizer_config.json", r#"{"chat_template": [{"name": "chat", "template": "x"}]}"#)])
        .render(&ChatInput::new(&[]))
        .unwrap_err()
        .to_string();
    assert!(words.contains("tokenizer_config.json cannot be used: it names chat, and none `default`"), "{words}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chat_template.jinja"), b"\xff").unwrap();
    let error = ChatTemplate::from_dir(dir.path(), None).unwrap().unwrap().check(false).unwrap_err();
    assert!(matches!(&error, TemplateError::Unusable { reason, .. } if reason.contains("UTF-8")), "{error}");
}

#[test]
fn a_file_that_is_named_replaces_the_checkpoints_templates() {
    let dir = folder(&[
        ("chat_template.jinja", "{% broken"),
        ("tokenizer_config.json", r#"{"bos_token": "<s>"}"#),
        ("mine.jinja", "mine {{ bos_token }}"),
    ]);
    let named = |name: &str| ChatTemplate::from_dir(dir.path(), Some(&dir.path().join(name))).unwrap().unwrap();
    assert_eq!(named("mine.jinja").render(&ChatInput::new(&[])).unwrap(), "mine <s>");
    assert!(named("nope.jinja").check(false).unwrap_err().to_string().contains("there is no such file"));
}

#[test]
fn sources_are_looked_up_in_order() {
    let config =
        ("tokenizer_config.json", r#"{"chat_template": "config {{ bos_token }}", "bos_token": {"content": "<s>"}}"#);
    let json = ("chat_template.json", r#"{"chat_template": "json"}"#);
    let render = |files: &[_]| {
        let template = ChatTemplate::from_dir(folder(files).path(), None).unwrap();
        template.map(|template| template.render(&ChatInput::new(&[])).unwrap())
    };
    assert_eq!(render(&[("chat_template.jinja", "jinja"), config, json]).as_deref(), Some("jinja"));
    assert_eq!(render(&[config, json]).as_deref(), Some("config <s>"));
    assert_eq!(render(&[json]).as_deref(), Some("json"));
    assert_eq!(render(&[("tokenizer_config.json", r#"{"chat_template": null}"#)]), None);
    let additional = ("additional_chat_templates/default.jinja", "additional");
    assert_eq!(render(&[additional, config, json]).as_deref(), Some("additional"));
    let dict = ("tokenizer_config.json", r#"{"chat_template": {"default": "dict", "rag": "{% broken"}}"#);
    assert_eq!(render(&[dict]).as_deref(), Some("dict"));
}

#[test]
fn named_templates_are_chosen_by_the_presence_of_tools() {
    let list = r#"{"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools[0].name }}"}]}"#;
    let files = [("chat_template.jinja", "plain"), ("additional_chat_templates/tool_use.jinja", "{{ tools[0].name }}")];
    let tools = [json!({"name": "search"})];
    for template in [of(&[("tokenizer_config.json", list)]), of(&files)] {
        assert_eq!(template.render(&ChatInput::new(&[])).unwrap(), "plain");
        assert_eq!(template.render(&ChatInput { tools: Some(&tools), ..ChatInput::new(&[]) }).unwrap(), "search");
    }
    for bad in ["7", "[7]", r#"{"default": 1}"#] {
        let template = of(&[("tokenizer_config.json", &format!("{{\"chat_template\": {bad}}}"))]);
        let error = template.check(false).unwrap_err().to_string();
        assert!(error.contains("`chat_template` must be a string, an object"), "{error}");
    }
}

#[test]
fn hostile_templates_run_out_of_budget() {
    let forever = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    let doubling = format!("{{% set x = 'xx' %}}{}{{{{ x }}}}", "{% set x = x ~ x %}".repeat(60));
    let shared = format!("{{% set x = [1] %}}{}", "{% set x = [x, x] %}".repeat(60));
    for source in [
        forever.to_owned(),
        doubling,
        format!("{shared}{{{{ x | tojson }}}}"),
        format!("{shared}{{{{ x }}}}"),
        format!("{shared}{{{{ (x ~ '') | length }}}}"),
        format!("{shared}{{% set y = x %}}{{{{ x == [y] }}}}"),
        "{{ 'x' * 99999999999 }}".to_owned(),
        "{{ [[1]] * 9999999 }}".to_owned(),
        "{% set n = namespace(x=[1]) %}{% for i in range(999) %}{% set n.x = n.x + n.x %}{% endfor %}".to_owned(),
        "{% set x = [range(9999)] %}{% set y = [range(9999)] %}{% for i in range(9999) %}{{ x == y }}{% endfor %}"
            .to_owned(),
        "{{ ('a' * 9999).replace('', 'b' * 99999) }}".to_owned(),
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{{ '{:999999999}'.format(1) }}".to_owned(),
        "{{ '{:.999999999}'.format(1.0) }}".to_owned(),
        "{{ '%999999999d' % 1 }}".to_owned(),
        "{{ 'x'.center(99999999999) }}".to_owned(),
        "{{ 'x'.zfill(99999999999) }}".to_owned(),
        "{% set x = [''] * 40000 %}{% for i in range(9999) %}{{ ''.join(x) ~ x | join ~ 'a'.startswith(x[1:]) }}{% endfor %}".to_owned(),
        "{% set x = range(9999) | list %}{% for i in range(9999) %}{% set y = (x ~ '') %}{% endfor %}".to_owned(),
        "{% set x = 'x' * 1000000 %}{% for i in range(9999) %}{{ 'a'.find(x) }}{{ 'a'.strip(x) }}{% endfor %}".to_owned(),
        "{{ 'x' | center(99999999999) }}".to_owned(),
        "{{ '\\t\\t'.expandtabs(99999999999) }}".to_owned(),
        "{% set c = [range(9999) | list] %}{% for i in range(9999) %}{{ c.index(c[0]) }}{{ c.count(c[0]) }}{% endfor %}".to_owned(),
        "{% set n = namespace(x='a') %}{% for i in range(40000) %}{% set n.x = cycler(n.x) %}{% endfor %}".to_owned(),
    ] {
        let error = render(&source, &json!([])).unwrap_err();
        assert!(
            matches!(error, TemplateError::TooCostly { .. } | TemplateError::Failed { .. }),
            "{source:.60}: {error}"
        );
    }
}

#[test]
fn hostile_nesting_is_an_error_and_no_stack_overflow() {
    let nest = "{% set n = namespace(x=[]) %}{% for i in range(40000) %}{% set n.x = [n.x] %}{% endfor %}";
    for end in ["", "{{ n.x | tojson }}", "{{ n.x }}", "{{ n.x == n.x }}", "{{ n.x | string | length }}"] {
        let _ = render(&format!("{nest}{end}"), &json!([]));
    }
    for deep in ["{{ ".to_owned() + &"(".repeat(90_000), "{% if a %}".repeat(90_000), "[".repeat(10)] {
        let _ = render(&deep, &json!([]));
    }
    for wrap in ["dict(a=n.x)", "n.x | batch(1)", "n.x + [n.x]"] {
        let source = format!(
            "{{% set n = namespace(x=[1]) %}}{{% for i in range(40000) %}}{{% set n.x = {wrap} %}}{{% endfor %}}{{{{ n.x }}}}"
        );
        assert!(matches!(render(&source, &json!([])), Err(TemplateError::Failed { .. })), "{wrap}");
    }
    let error = render("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", &json!([])).unwrap_err();
    assert!(matches!(error, TemplateError::Failed { .. }), "{error}");
}

/// Constructs that nest without brackets, `n` deep.
fn chains(n: usize) -> Vec<String> {
    let around = |before: &str, repeated: &str, after: &str| format!("{before}{}{after}", repeated.repeat(n));
    let mut chains: Vec<String> = ["- ", "not ", "a if b else ", "a is x -"]
        .map(|prefix| around("{{ ", prefix, "1 }}"))
        .into_iter()
        .chain(
            [".a", "[0]", "[1:]", "()", "|upper", " is defined", " if b"].map(|postfix| around("{{ a", postfix, " }}")),
        )
        .chain(
            ["+", "-", "~", "*", "/", "//", "%", "**", " and ", " or ", " == ", " < ", " in ", " not in "]
                .map(|operator| around("{{ a", &format!("{operator}a"), " }}")),
        )
        .collect();
    chains.extend([
        around("{% if a %}", "{% elif a %}", "{% endif %}"),
        around("{% if a %}", "{% elif a %}{% if b %}{% elif c %}{% for d in e %}", ""),
        around("{% if a %}", "{%- elif a -%}\n", "{% else %}{{ ---1 }}{% endif %}"),
        around("{% set a = b", "|upper", " %}"),
        around("{% set a", "|upper", " %}b{% endset %}"),
        around("{% filter upper", "|upper", " %}b{% endfilter %}"),
        around("{% for a in b", ".c", " %}{% endfor %}"),
        around("{% macro m(a=b", ".c", ") %}{% endmacro %}"),
        around("{{ {'a': [1, b", ".c", ", 2]} }}"),
        around("{{ f(a, b=1", "+1", ") }}"),
    ]);
    let within = (0..60).fold("a".to_owned(), |inner, _| format!("({inner}{})", "+a".repeat(n)));
    chains.push(format!("{{{{ {within} }}}}"));
    chains
}

#[test]
fn long_chains_of_operators_are_an_error_and_no_stack_overflow() {
    let small = || {
        for n in [401, 2_000, 16_000, 100_000] {
            for source in chains(n).into_iter().filter(|source| source.len() <= 1 << 20) {
                let error = ChatTemplate::new(&source, &[]).unwrap_err();
                let words = error.to_string();
                assert!(matches!(error, TemplateError::Broken { .. }), "{source:.60}: {words}");
                assert!(words.contains("more than 400 deep"), "{source:.60}: {words}");
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(small).unwrap().join().unwrap();
}

#[test]
fn the_deepest_chains_that_are_taken_fit_a_small_stack() {
    let small = || {
        for n in [30, 130, 390] {
            for source in chains(n) {
                let _ = render(&source, &json!([]));
            }
        }
        // The deepest brackets and blocks around the longest chains.
        for n in [195, 250, 320, 390] {
            let blocks = format!("{}{{{{ {}1 }}}}", "{% if a %}".repeat(140), "- ".repeat(n));
            let elifs = format!("{}{}", "{% for a in b %}".repeat(140), chains(n).join("{% endfor %}"));
            let both =
                format!("{{% if a %}}{}{{{{ {}1{} }}}}", "{% elif a %}".repeat(n / 2), "- ".repeat(n / 2 - 20), "");
            let brackets = format!("{{{{ {}{}1{} }}}}", "- ".repeat(n - 80), "(".repeat(70), ")".repeat(70));
            for source in [blocks + &"{% endif %}".repeat(140), elifs, both + "{% endif %}", brackets] {
                let _ = render(&source, &json!([]));
            }
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(small).unwrap().join().unwrap();
}

#[test]
fn items_of_a_long_list_are_not_counted_together() {
    let items = "messages[0].content | upper, ".repeat(2_000);
    assert_eq!(text(&format!("{{{{ [{items}] | length }}}}")), "2000");
    let pairs: String = (0..2_000).map(|i| format!("'k{i}': -1 + 2, ")).collect();
    assert_eq!(text(&format!("{{{{ {{{pairs}}} | length }}}}")), "2000");
    let sums = (0..100).map(|i| i.to_string()).collect::<Vec<_>>().join(" ~ ");
    assert_eq!(text(&format!("{{{{ {sums} }}}}")).len(), 190);
    assert_eq!(text(&"{% if false %}{% elif true %}x{% endif %}".repeat(1_000)).len(), 1_000);
}

#[test]
fn namespaces_form_no_cycles() {
    for source in [
        "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
        "{% set n = namespace() %}{% set n.x = [n] %}{{ n }}",
        "{% set n = namespace() %}{% set n.x = {'a': [n]} %}{{ n }}",
        "{% set n = namespace() %}{% set m = namespace(n=n) %}",
    ] {
        let error = render(source, &json!([])).unwrap_err();
        assert!(error.to_string().contains("builds a namespace inside"), "{source}: {error}");
    }
    let many = "{% set n.x = 1 %}".repeat(300);
    assert!(matches!(
        render(&format!("{{% set n = namespace() %}}{many}"), &json!([])),
        Err(TemplateError::Broken { .. })
    ));
}

#[test]
fn checks_leave_jumps_where_they_belong() {
    let source = "{% macro m(a, b=[1, 2]) %}{{ a }}{{ b }}{% endmacro %}{% for x in [[1], [2, 3]] if x | length > 1 %}\
                  {{ m(x) if loop.first else [] }}{{ caller is defined }}{% else %}none{% endfor %}\
                  {{ [1] and [] or 'empty' }}{% for i in [1, [2]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}";
    assert_eq!(text(source), "[2, 3][1, 2]Falseempty12");
}

#[test]
fn clients_cannot_replace_the_checks() {
    let template = ChatTemplate::new("", &[]).unwrap();
    let kwargs = json!({" bounded": 1});
    let error = template.render(&ChatInput { kwargs: kwargs.as_object(), ..ChatInput::new(&[]) }).unwrap_err();
    assert!(matches!(error, TemplateError::Reserved { .. }), "{error}");
}

#[test]
fn an_oversized_template_is_refused() {
    let error = ChatTemplate::new(&"x".repeat(2 << 20), &[]).unwrap_err();
    assert!(matches!(error, TemplateError::Broken { .. }));
}

#[test]
fn shared_text_costs_no_more_memory_than_the_budget() {
    let list = "{% set s = 'x' * 1000000 %}{% set l = [s] * 40000 %}";
    let members: String = ('a'..='z').map(|c| format!("{{% set n.{c} = s %}}")).collect();
    let namespace = format!("{{% set n = namespace() %}}{{% set s = 'x' * 50000000 %}}{members}{{{{ n }}}}");
    for end in ["{{ l }}", "{{ l | upper }}", "{{ l | join }}", "{{ ''.join(l) }}", "{{ l ~ '' }}", "{{ '%s' % [l] }}"]
    {
        let error = render(&format!("{list}{end}"), &json!([])).unwrap_err();
        assert!(error.to_string().contains("bytes"), "{end}: {error}");
    }
    assert!(matches!(render(&namespace, &json!([])), Err(TemplateError::TooCostly { .. })));
    let many = "{% set s = 'x' * 1000000 %}{{ ('{0}' * 5000).format(s) }}";
    assert!(matches!(render(many, &json!([])), Err(TemplateError::TooCostly { .. })));
}

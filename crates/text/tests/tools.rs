//! Tools in chat templates: templates in the style of each family, and the formats that are found in them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::bundled;
use mlx_serving_text::{
    AnswerText, CallFormat, ChatInput, ChatTemplate, Formats, OutputFormat, ReasoningFormat, Segment, StopMatcher,
    ToolSchema, content,
};
use serde_json::{Value, json};

fn tools() -> Vec<Value> {
    let city = json!({ "type": "string", "description": "Name, in \"quotes\" <or> not" });
    let parameters = json!({ "type": "object", "properties": { "city": city, "days": { "type": "integer" } }, "required": ["city"] });
    vec![
        json!({ "type": "function", "function": { "name": "weather", "description": "Tells", "parameters": parameters } }),
    ]
}

fn messages() -> Vec<Value> {
    let call = json!({ "id": "call_1", "type": "function", "function": { "name": "weather", "arguments": { "city": "Köln", "days": 2 } } });
    vec![
        json!({ "role": "user", "content": "hi" }),
        json!({ "role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "Hm" }),
        json!({ "role": "tool", "content": "7", "tool_call_id": "call_1", "name": "weather" }),
    ]
}

fn render(source: &str) -> String {
    let template = ChatTemplate::new(source, &[("bos_token", "<s>".into()), ("eos_token", "</s>".into())]).unwrap();
    assert!(template.knows_tools());
    let (tools, messages) = (tools(), messages());
    template.render(&ChatInput { tools: Some(&tools), ..ChatInput::new(&messages) }).unwrap()
}

fn formats(source: &str) -> Formats {
    ChatTemplate::new(source, &[]).unwrap().formats(&bundled())
}

const TOOL: &str = r#"{"type": "function", "function": {"name": "weather", "description": "Tells", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Name, in \"quotes\" <or> not"}, "days": {"type": "integer"}}, "required": ["city"]}}}"#;

/// Qwen2.5 and Hermes: a list of tools, consecutive results in one turn.
const QWEN25: &str = r##"{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {{- "# Tools\n\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor each call: <tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"##;

/// Llama 3.1: dates, tools in the first message of the user, one call at a time.
const LLAMA: &str = r#"{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'user' and not tools is none %}
    {%- set first = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
    {{- "<|start_header_id|>user<|end_header_id|>\n\n" }}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. ' }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"#;

/// Mistral: tools before the last message of the user, the objects of calls written field by field, namespaces, ids of nine characters.
const MISTRAL: &str = r#"{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(id="") %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val | tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function | tojson %}
            {{- out[:-1] }}
            {%- set ns.id = tool_call.id | string %}
            {{- ', "id": "' + ns.id[-9:] + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "tool" or message["role"] == "tool_results" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"#;

/// GLM and Qwen3-Coder: arguments one by one, strings as they are; a macro, and reasoning behind the user's last message.
const GLM: &str = r#"[gMASK]<sop>
{%- if tools -%}
<|system|>
{% for tool in tools %}
{{ tool | tojson(ensure_ascii=False) }}
{% endfor %}
<tool_call>{function-name}
<arg_key>{arg-key-1}</arg_key>
<arg_value>{arg-value-1}</arg_value>
</tool_call>{%- endif -%}
{%- macro visible_text(content) -%}
    {%- if content is string -%}
        {{- content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- for item in content -%}{%- if item is mapping and item.type == 'text' -%}{{- item.text }}{%- endif -%}{%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(last_user_index=-1) %}
{%- for m in messages %}
    {%- if m.role == 'user' %}{% set ns.last_user_index = loop.index0 -%}{%- endif %}
{%- endfor %}
{% for m in messages %}
{%- if m.role == 'user' -%}<|user|>
{{ visible_text(m.content) }}
{%- elif m.role == 'assistant' -%}
<|assistant|>
{%- if m.reasoning_content is string and loop.index0 > ns.last_user_index -%}
{{ '\n<think>' + m.reasoning_content.strip() + '</think>' }}
{%- endif -%}
{%- for tc in m.tool_calls or [] %}
{%- if tc.function %}{%- set tc = tc.function %}{%- endif %}
{{ '\n<tool_call>' + tc.name }}
{% set _args = tc.arguments %}
{% for k, v in _args.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson(ensure_ascii=False) if v is not string else v }}</arg_value>
{% endfor %}
</tool_call>{% endfor %}
{%- elif m.role == 'tool' -%}
{{- '<|observation|>' if loop.first or (messages[loop.index0 - 1].role != "tool") }}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>{{- '\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}
{%- endif -%}"#;

/// Gemma 4: values by macros that call themselves, dictionaries in order of their keys.
const GEMMA: &str = r#"{%- macro argument(value) -%}
    {%- if value is string -%}{{ '<|"|>' + value + '<|"|>' }}
    {%- elif value is boolean -%}{{ 'true' if value else 'false' }}
    {%- elif value is mapping -%}
        {{- '{' -}}{%- for key, item in value | dictsort -%}{{ ',' if not loop.first }}{{ key }}:{{ argument(item) }}{%- endfor -%}{{- '}' -}}
    {%- elif value is sequence -%}
        {{- '[' -}}{%- for item in value -%}{{ ',' if not loop.first }}{{ argument(item) }}{%- endfor -%}{{- ']' -}}
    {%- else -%}{{ value }}{%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- if tools -%}<|turn>system
{%- for tool in tools -%}<|tool>declaration:{{ tool['function']['name'] }}{{ argument(tool['function']['parameters']) }}<tool|>{%- endfor -%}<turn|>
{% endif -%}
{%- for message in messages -%}
{%- if message['tool_calls'] -%}
<|turn>model
{% for call in message['tool_calls'] -%}<|tool_call>call:{{ call['function']['name'] }}{{ argument(call['function']['arguments']) }}<tool_call|>{%- endfor -%}
{%- elif message['role'] == 'tool' -%}
<|tool_response>response:{{ message['name'] }}{value:{{ argument(message['content']) }}}<tool_response|>
{%- else -%}<|turn>{{ message['role'] }}
{{ message['content'] | trim }}<turn|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|channel>thought\n<channel|>' if not enable_thinking | default(false) -}}{%- endif -%}"#;

/// gpt-oss: types of TypeScript by a macro, recipients from the last call.
const HARMONY: &str = r#"{%- macro render_type(spec) -%}
    {%- if spec.type == "string" -%}{{- "string" }}{%- elif spec.type in ["number", "integer"] -%}{{- "number" }}{%- else -%}{{- "any" }}{%- endif -%}
{%- endmacro -%}
{%- if reasoning_effort is not defined %}{%- set reasoning_effort = "medium" %}{%- endif %}
{{- "<|start|>system<|message|>Reasoning: " + reasoning_effort + "<|end|>" }}
{%- if tools -%}
    {{- "<|start|>developer<|message|>namespace functions {\n" }}
    {%- for tool in tools %}{%- set tool = tool.function %}
        {{- "type " + tool.name + " = (_: {\n" }}
        {%- for name, spec in tool.parameters.properties.items() %}
            {{- name }}{%- if name not in (tool.parameters.required or []) %}{{- "?" }}{%- endif %}{{- ": " }}{{ render_type(spec) }}{{- ",\n" }}
        {%- endfor %}
        {{- "}) => any;\n" }}
    {%- endfor %}
    {{- "}<|end|>" }}
{%- endif %}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in messages -%}
    {%- if message.role == 'assistant' and "tool_calls" in message %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if message.thinking %}{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}{%- endif %}
        {{- "<|start|>assistant to=functions." + tool_call.name + "<|channel|>commentary json<|message|>" }}
        {{- tool_call.arguments | tojson }}{{- "<|call|>" }}
        {%- set last_tool_call.name = tool_call.name %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}{{- raise_exception("Message has tool role, but there was no previous assistant message with a tool call!") }}{%- endif %}
        {{- "<|start|>functions." + last_tool_call.name + " to=assistant<|channel|>commentary<|message|>" + message.content | tojson + "<|end|>" }}
    {%- else %}
        {{- "<|start|>" + message.role + "<|message|>" + message.content + "<|end|>" }}
    {%- endif %}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"#;

#[test]
fn templates_of_every_family_render_tools_calls_and_results() {
    let call = "{\"city\": \"Köln\", \"days\": 2}";
    let qwen = render(QWEN25);
    assert!(qwen.contains(&format!("<tools>\n{TOOL}\n</tools>")), "{qwen}");
    let turns = format!(
        "<|im_start|>assistant\n<tool_call>\n{{\"name\": \"weather\", \"arguments\": {call}}}\n</tool_call><|im_end|>\n\
         <|im_start|>user\n<tool_response>\n7\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    );
    assert!(qwen.ends_with(&turns), "{qwen}");

    let llama = render(LLAMA);
    assert!(
        llama.contains("{\n    \"type\": \"function\",\n    \"function\": {\n        \"name\": \"weather\""),
        "{llama}"
    );
    assert!(llama.contains(&format!("{{\"name\": \"weather\", \"parameters\": {call}}}<|eot_id|>")), "{llama}");

    let mistral = render(MISTRAL);
    assert!(
        mistral.starts_with(&format!("<s>[AVAILABLE_TOOLS] [{TOOL}][/AVAILABLE_TOOLS][INST] hi[/INST]")),
        "{mistral}"
    );
    let turns = format!(
        "[TOOL_CALLS] [{{\"name\": \"weather\", \"arguments\": {call}, \"id\": \"call_1\"}}]</s>[TOOL_RESULTS] {{\"content\": 7, "
    );
    assert!(mistral.contains(&turns), "{mistral}");

    let glm = render(GLM);
    let turns = "<|assistant|>\n<think>Hm</think>\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n\
                 <arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call><|observation|>\n<tool_response>\n7\n</tool_response><|assistant|>";
    assert!(glm.ends_with(turns), "{glm}");

    let gemma = render(GEMMA);
    assert!(gemma.contains("<|tool>declaration:weather{properties:{city:{description:<|\"|>Name, in "), "{gemma}");
    let turns = "<|tool_call>call:weather{city:<|\"|>Köln<|\"|>,days:2}<tool_call|><|tool_response>response:weather{value:<|\"|>7<|\"|>}<tool_response|>";
    assert!(gemma.ends_with(&format!("{turns}<|channel>thought\n<channel|>")), "{gemma}");

    let harmony = render(HARMONY);
    assert!(harmony.contains("type weather = (_: {\ncity: string,\ndays?: number,\n}) => any;\n}"), "{harmony}");
    let turns = format!(
        "<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{call}<|call|><|start|>functions.weather to=assistant"
    );
    assert!(harmony.contains(&turns), "{harmony}");
}

#[test]
fn formats_are_found_in_the_templates_own_words() {
    let found = |source: &str| (formats(source).calls, formats(source).reasoning);
    assert_eq!(found(QWEN25), (Some(CallFormat::Hermes), None));
    assert_eq!(found(LLAMA), (Some(CallFormat::LlamaJson), None));
    assert_eq!(found(MISTRAL), (Some(CallFormat::Mistral), None));
    assert_eq!(found(GLM), (Some(CallFormat::Glm), Some(ReasoningFormat::Think)));
    assert_eq!(found(GEMMA), (Some(CallFormat::Gemma), Some(ReasoningFormat::Gemma)));
    assert_eq!(found(HARMONY), (Some(CallFormat::Harmony), Some(ReasoningFormat::Harmony)));
    let coder = "{% if tools %}<tool_call>\n<function=name>\n<parameter=key>\nvalue\n</parameter>\n</function>\n</tool_call>{% endif %}";
    assert_eq!(found(coder), (Some(CallFormat::QwenXml), None));
    assert_eq!(found("{% if tools %}<|tool_list_start|>{% endif %}"), (Some(CallFormat::Pythonic), None));
    assert_eq!(found("{{ content.split('</think>')[-1] }}"), (None, Some(ReasoningFormat::Think)));
    assert_eq!(found("{{ messages[0].content }}"), (None, None));
}

#[test]
fn a_checkpoint_may_name_its_format_of_calls() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({ "tool_parser_type": "glm47", "chat_template": QWEN25 });
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let template = ChatTemplate::from_dir(dir.path(), None).unwrap().unwrap();
    assert_eq!(template.formats(&bundled()).calls, Some(CallFormat::Glm));
}

#[test]
fn a_template_tells_whether_it_knows_tools_and_where_it_looks_for_reasoning() {
    let template = |source: &str| ChatTemplate::new(source, &[]).unwrap();
    assert!(!template("tools {{ messages[0].content }} {# tools #}").knows_tools());
    assert!(template("{{ tools is none }}").knows_tools());
    assert_eq!(template(GLM).reasoning_key(true), Some("reasoning_content"));
    assert_eq!(template(HARMONY).reasoning_key(true), Some("thinking"));
    assert_eq!(template("{{ m['reasoning'] }}").reasoning_key(false), Some("reasoning"));
    assert_eq!(template(QWEN25).reasoning_key(true), None);
}

#[test]
fn tokens_of_an_answer_become_segments() {
    let tokenizer = bundled();
    let formats = Formats { reasoning: Some(ReasoningFormat::Think), calls: Some(CallFormat::Hermes) };
    let tools = vec![ToolSchema { name: "f".into(), parameters: json!({}) }];
    let format = OutputFormat::new(formats, tools, "");
    let text = "<think>\nHm 🦀\n</think>\nSo: <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"é\"}}</tool_call><|im_end|>";
    let mut answer = AnswerText::new(&tokenizer, None, StopMatcher::new(&["never"]).unwrap(), &format);
    let (mut shown, mut name, mut arguments, mut reasons) = (String::new(), String::new(), String::new(), Vec::new());
    let mut segments = Vec::new();
    for id in tokenizer.encode(text, false).unwrap() {
        segments.extend(answer.push(id).unwrap().segments);
        reasons.push(answer.reasons());
    }
    segments.extend(answer.finish());
    shown += &content(&segments);
    for segment in &segments {
        match segment {
            Segment::Call { name: called } => name += called,
            Segment::Arguments(json) => arguments += json,
            _ => {}
        }
    }
    assert_eq!((shown.as_str(), name.as_str(), arguments.as_str()), ("So:", "f", "{\"a\": \"é\"}"));
    assert_eq!(mlx_serving_text::reasoning(&segments), "Hm 🦀");
    assert!(reasons.contains(&true) && reasons.last() == Some(&false));
    let end = format.end_of_reasoning(&tokenizer);
    assert_eq!(tokenizer.decode(&end, false).unwrap(), "\n</think>\n\n");
    assert_eq!(tokenizer.decode(&format.start_of_reasoning(&tokenizer), false).unwrap(), "<think>");
    assert!(OutputFormat::new(formats, vec![], "<think>\n\n</think>\n").start_of_reasoning(&tokenizer).is_empty());
}

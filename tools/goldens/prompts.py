"""Prompts for the bundled model: sections of its book, beginnings of its sentences, things it never saw, and three that it ends by itself."""


def _ask(text, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": text}]}


PROMPTS = [
    _ask("What Is Ownership?"),
    _ask("Explain: References and Borrowing"),
    _ask("Explain: Hello, World!"),
    _ask("What is a closure in Rust?"),
    _ask("Validating References with Lifetimes"),
    _ask("How do I write tests?", system="You are a patient teacher of Rust."),
    _ask("The Slice Type"),
    _ask("Explain: Unsafe Rust"),
    _ask("Was ist `Option<T>`? Erkläre es auf Deutsch, bitte: äöüß €"),
    _ask("🦀🦀 — 日本語で? \u200b\ttabs\n\nand newlines"),
    _ask("x"),
    {
        "messages": [
            {"role": "user", "content": "What is Cargo?"},
            {"role": "assistant", "content": "Cargo is Rust's build system and package manager."},
            {"role": "user", "content": "Explain: Creating a Project with Cargo"},
        ]
    },
    {"prompt": "Each value in Rust has an owner."},
    {"prompt": "```\nfn main() {\n    let x = 5;\n"},
    {"prompt": "The `match` control flow construct"},
    {"prompt": "use std::collections::HashMap;\n\nlet mut scores = HashMap::new();"},
    {"prompt": "Smart pointers, on the other hand,"},
    {"prompt": "if (a < b && c != d) { return \"naïve\" + 'Ω'; } // 100% \\ ~^"},
    {"prompt": "Concurrency: threads, channels, and"},
    {"prompt": "    "},
    _ask("Compound Types"),
    _ask("The Rules of References"),
    _ask("Who Rust Is For"),
]

//! Every ```ir block of `docs/ir.md` is a function that parses, verifies and prints as it stands there.

use polyphase::ir;

fn blocks(page: &str) -> Vec<&str> {
    page.split("\n```ir\n").skip(1).map(|rest| rest.split_inclusive("\n```").next().unwrap().strip_suffix("```").unwrap()).collect()
}

#[test]
fn examples_parse_verify_and_print_as_written() {
    let blocks = blocks(include_str!("../docs/ir.md"));
    assert!(blocks.len() >= 6, "only {} examples were found", blocks.len());
    for text in blocks {
        let f = ir::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        f.verify().unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(f.to_string(), text);
    }
}

#[test]
fn the_page_names_every_stage_kind_and_operation() {
    let page = include_str!("../docs/ir.md");
    let words = (ir::Stage::ALL.iter().map(|s| s.name()))
        .chain(ir::BufferKind::ALL.iter().map(|k| k.name()))
        .chain(ir::UnOp::ALL.iter().map(|o| o.name()))
        .chain(ir::BinOp::ALL.iter().map(|o| o.name()))
        .chain(ir::CmpOp::ALL.iter().map(|o| o.name()));
    for word in words {
        assert!(page.contains(&format!("'{word}'")), "{word} is not in the grammar of docs/ir.md");
    }
}

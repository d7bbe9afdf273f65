//! Functions in the IR on the command line: those that no code can be made of get a sentence, those at the edge run as they are interpreted.
#![cfg(feature = "cli")]

#[path = "support/command.rs"]
mod command;

use command::*;

/// Functions that verify as text, but make code that computes other indices than the interpreter, or that no machine holds. `$` is the body of `run`.
#[test]
fn functions_that_no_code_can_be_made_of_get_a_sentence_and_status_2() {
    let dir = directory("functions");
    let frame = "func t f32 stage vector {
  symbols L
  buffer x: input f32[8, 8]
  buffer y: output f32[16]
  table side = [1, 0]
  reg r: f32x16
  reg s: f32
  run { $ }
}
";
    let wraps = "reach at most 2^61";
    let many = "writes out to more than 262144 statements";
    for (i, (body, words)) in [
        ("for i in 0..8 { when 9000000000000000000 <= 1125899906842624*i + 9000000000000000000 < -9000000000000000000 { y[i + 1000000000] = 1.0 } }", wraps),
        ("for i in 0..9223372036854775807 step 9223372036854775806 { when -100 <= i < 0 { y[1000000000*i] = 1.0 } }", wraps),
        ("par for i in -9223372036854775807..9223372036854775807 step 4611686018427387904 { y[0] = 1.0 }", wraps),
        ("for i in 0..3 step 4611686018427387904 { y[i] = 1.0 }", wraps),
        ("par for i in 0..L step 1152921504606846976*L { y[0] = 1.0 }", wraps),
        ("r = x[123456789*L, 9223372036854775800 : 16 clip 0..8] y[0 : 16] = r", wraps),
        ("r = x[L, 0 : 16 step 1152921504606846976 clip 0..8] y[0 : 16] = r", wraps),
        ("r = x[0, 0 : 8 clip 9223372036854775800*L..8] y[0 : 16] = r", "lanes"),
        ("r = x[0, 0 : 16 clip 9223372036854775800*L..8] y[0 : 16] = r", wraps),
        ("for i in 0..8 { tile t asks x[9223372036854775800*i..8, 0..8] { y[i] = 1.0 } }", wraps),
        ("for q in 0..1000*L { tile t asks x[side[q]..side[q] + 1, 0..8] { s = 0.0 y[0] = s } }", "table side is indexed by 2"),
        ("unroll for i in 0..40000000 { y[0] = 1.0 }", many),
        ("unroll for i in 0..9223372036854775807 step 9223372036854775806 { y[0] = 1.0 }", wraps),
        ("y[0 : 9000000000000 clip 0..8] = 1.0", "an access of 9000000000000 lanes; legal: at most 1024"),
        ("tile t { y[0 : 9000000000000 clip 0..8] = 1.0 }", "at most 1024"),
        ("y[0 : 3000000 step 2 clip 0..8] = 1.0", "at most 1024"),
        ("unroll for a in 0..200000 { } y[0] = s", "s is read before it is set"),
        ("for i in 0..8 { tile t { s = x[0, i] } y[i] = s }", "keeps its registers to itself"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = write(&dir, &format!("{i}.ir"), frame.replace('$', body));
        for isa in polyphase::codegen::target::Isa::detected() {
            refused(&["explain", &path, "--isa", isa.name()], words);
        }
    }
}

/// Displacements of loads and stores near the end of what an instruction holds, code of loops without iterations, and the most lanes.
#[test]
fn functions_at_the_edge_run_as_they_are_interpreted() {
    let dir = directory("edges");
    for (i, (before, body)) in [
        ("", "for i in 1..2 { r = x[536870910 - 536870910*i : 16] y[0 : 16] = r }"),
        ("", "for i in 1..2 { r = x[536870910*i - 536870910 : 16] y[536870911*i - 536870911 : 16] = r }"),
        ("", "for i in 3..2 { unroll for a in 0..2 { y[a] = x[0] } } y[0] = 2.0"),
        ("reg m: f32x1024", "m = x[0 : 1024 step 3 clip 0..100] y[0 : 1024 step 2 clip 1..16] = m"),
        ("", "unroll for a in 0..5000 { r = x[a : 16 step 3 clip 1..9] y[0 : 16 clip 2..9] = r } y[1] = 1.0"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!(
            "func t f32 stage vector {{ buffer x: input f32[100] buffer y: output f32[16] {before} reg r: f32x16 run {{ y[0 : 16] = 0.0 {body} }} }}"
        );
        let path = write(&dir, &format!("{i}.ir"), text);
        for isa in polyphase::codegen::target::Isa::detected() {
            let report = json(&["explain", &path, "--isa", isa.name(), "--json"]);
            assert_eq!(report["equal_to_interpreter"], true, "{body} at {isa}: {report}");
        }
    }
}

/// What a table has no entry for is not folded when code is written out; the code that results is never run.
#[test]
fn code_is_made_where_a_table_has_no_entry() {
    let dir = directory("entries");
    let path = write(
        &dir,
        "entry.ir",
        "func t f32 stage tile { buffer y: output f32[8] table t = [1, 0] run { unroll for a in 0..3 { unroll for b in a..a + 1 { y[t[b]] = 0.0 } } } }",
    );
    for isa in polyphase::codegen::target::Isa::detected() {
        assert!(ok(&["dump-ir", &path, "--asm", "--isa", isa.name()]).contains("; run: "), "{isa}");
    }
    refused(&["explain", &path], "table t is indexed by 2");
}

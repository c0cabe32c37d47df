//! Experiments as text: what is read, and where problems are said to be.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::experiment::schedule;

const GOOD: &str = "\
apiVersion: medic/v1
kind: Experiment
metadata: {name: game-day}
spec:
  seed: 7
  duration: 60s
  probes:
    - {name: web, http: {url: 'http://127.0.0.1:8080/healthz'}}
    - {name: rate, metric: {url: 'http://127.0.0.1:8080/metrics', select: 'requests_total{code=\"500\"}'}}
  steadyState: {expect: 'web.status == 200', during: 'rate.value < 10.0', hold: 1s}
  abort:
    - {when: 'web.status >= 500', for: 5s}
  targets:
    - {name: api, process: {pidFile: /run/api.pid}}
    - {name: disk, directory: /srv/data}
    - {name: blue, namespace: blue}
  faults:
    - {target: api, inject: pause, at: 1s, for: 2s, every: 10s, times: 3}
    - {target: api, inject: {kill: {restartAfter: 3s}}, rate: 4/1m}
    - {target: disk, inject: {fill: {bytes: 64MiB}}, at: 5s, for: 10s}
    - {target: blue, inject: {network: {delay: 100ms, jitter: 20ms, loss: 5%}}, at: 5s, for: 10s}
    - {target: blue, inject: {partition: {direction: in, peers: [10.0.0.0/8], ports: [80]}}, for: 1s}
";

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn an_experiment_is_read_and_its_times_are_drawn_from_its_seed() {
    let spec = parse(GOOD).unwrap().spec;
    let turns = schedule::turns(&spec);
    let of = |fault: usize| turns.iter().filter(move |turn| turn.fault == fault);
    let pauses: Vec<u64> = of(0).map(|turn| turn.at.0).collect();
    assert_eq!(pauses, [1_000, 11_000, 21_000]);
    assert!(of(1).count() > 0 && of(1).all(|turn| turn.end().0 <= 60_000));
    assert_eq!(turns, schedule::turns(&parse(GOOD).unwrap().spec), "the same seed, the same times");
    let other = parse(&GOOD.replace("seed: 7", "seed: 8")).unwrap().spec;
    assert_ne!(turns, schedule::turns(&other));
}

#[test]
fn an_experiment_that_does_nothing_is_none() {
    let at_random = |line: &&str| !line.contains("{target:") || line.contains("rate:");
    let lines: Vec<&str> = GOOD.lines().filter(at_random).collect();
    let text = lines.join("\n");
    assert!(parse(&text).is_ok());
    let told = problems(&text.replace("rate: 4/1m", "rate: 1/1h"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("spec.faults: seed 7 draws none of them within 1m"), "{told:?}");
}

#[test]
fn problems_have_line_and_column() {
    for (from, to, expected) in [
        ("  seed: 7", "  sead: 7", "5:3: spec.sead: unknown key `sead`; did you mean `seed`?"),
        (
            "  seed: 7",
            "  seed: 7\n  seed: 8",
            "6:3: duplicate key `seed`: it stands already in line 5",
        ),
        (
            "inject: pause, at",
            "inject: puase, at",
            "18:29: spec.faults[0].inject: unknown value `puase`; did you mean `pause`?",
        ),
        (
            "expect: 'web.",
            "expect: 'wed.",
            "10:26: spec.steadyState.expect: unknown variable `wed`; did you mean `web`?",
        ),
        (
            "expect: 'web.status",
            "expect: 'web.up && web.stat",
            "10:40: spec.steadyState.expect: `web` has no field `stat`; did you mean `status`?",
        ),
        (
            "during: 'rate.value",
            "during: 'rate.latency_ms",
            "`rate` has no field `latency_ms` (known: value, max, min, count)",
        ),
        (
            "{when: 'web.status >= 500', for: 5s}",
            "{when: web.statuss >= 500, noData: ignore}",
            "12:18: spec.abort[0].when: `web` has no field `statuss`; did you mean `status`?",
        ),
        (
            "{target: disk, inject: {fill",
            "{target: dusk, inject: {fill",
            "20:16: spec.faults[2].target: no target `dusk` (known: api, disk, blue)",
        ),
        ("at: 1s, for: 2s, ", "at: 1s, ", "18:29: spec.faults[0].inject: pause needs a `for`"),
        (
            "kind: Experiment",
            "kind: Experimint",
            "2:7: kind: unknown kind `Experimint`; did you mean `Experiment`?",
        ),
        (
            "'http://127.0.0.1:8080/healthz'",
            "'127.0.0.1:8080'",
            "8:31: spec.probes[0].http.url: `127.0.0.1:8080` is not a URL",
        ),
        (
            "namespace: blue}",
            "namespace: blue, container: b}",
            "16:7: spec.targets[2]: a target has exactly one of",
        ),
        (
            "pidFile: /run/api.pid",
            "pidFile: api.pid",
            "14:28: spec.targets[0].process: `api.pid` is not an absolute path",
        ),
        ("every: 10s, times: 3", "every: 1s, times: 3", "overlaps the one from 1s to 3s"),
        ("loss: 5%", "loss: 5%, rate: 1mbit", "rate goes alone"),
        ("[10.0.0.0/8]", "['10.0.0.0/8; flush ruleset']", "is no address"),
        (
            "namespace: blue}",
            "namespace: '../blue'}",
            "16:31: spec.targets[2].namespace: letters, digits",
        ),
        (
            "{target: disk, inject: {fill: {bytes: 64MiB}}",
            "{target: disk, inject: pause",
            "pause is nothing that `disk` can be given",
        ),
        (
            "target: api, inject: pause",
            "target: api, inject: {clockSkew: {by: 1m}}",
            "clockSkew is nothing that `api` can be given",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let found = problems(&GOOD.replace(from, to));
        assert!(found.iter().any(|one| one.contains(expected)), "{to}: {found:#?}");
    }
}

#[test]
fn the_example_of_a_claim_about_visitors_can_refute_it() {
    let spec = read(Path::new("../deploy/experiments/slow-web.yaml")).unwrap().spec;
    assert!(spec.steady_state.during.unwrap().contains("web.status == 200"), "asked meanwhile");
    let web = spec.probes.iter().find(|probe| probe.name == "web").unwrap();
    let look = web.http.as_ref().unwrap().timeout.as_duration() + crate::experiment::run::EVERY;
    for fault in &spec.faults {
        let lasts = fault.in_force().as_duration();
        assert!(lasts > look, "{}: a look begins and ends within it", fault.title());
    }
}

#[test]
fn an_allow_list_is_explicit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("allow.yaml");
    let read = |targets: &str| {
        let text = format!(
            "apiVersion: medic/v1\nkind: AllowList\nmetadata: {{name: a}}\nspec:\n  targets:\n    - {targets}\n"
        );
        std::fs::write(&path, text).unwrap();
        allow::read(&path).map(|spec| spec.targets.len()).map_err(|error| error.to_string())
    };
    assert_eq!(
        read("{process: {exe: /usr/bin/api}, inject: [kill, pause], restart: [/bin/start]}"),
        Ok(1)
    );
    for (text, expected) in [
        ("{process: {exe: /usr/bin/api}}", "key `inject` is missing"),
        (
            "{process: {exe: /usr/bin/api}, inject: []}",
            "allow.yaml:6:46: spec.targets[0].inject: name the faults",
        ),
        ("{process: {}, inject: [kill]}", "name a pidFile or an exe"),
        ("{process: {exe: api}, inject: [kill]}", "not an absolute path"),
        ("{container: a, namespace: b, inject: [pause]}", "exactly one of"),
        ("{container: a, inject: [all]}", "unknown value `all`"),
        ("{directory: /srv, inject: [fill]}", "maxBytes"),
        ("{container: a, inject: [kill], restart: [sh, -c, x]}", "absolute path"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_schemas_know_every_fault_and_define_what_they_refer_to() {
    for (schema, words) in [
        (schema(), ["restartAfter", "clockSkew", "noData", "steadyState", "pidFile"].as_slice()),
        (allow::schema(), ["maxBytes", "restart", "commands", "clockSkew", "pidFile"].as_slice()),
    ] {
        let text = schema.to_string();
        for word in words {
            assert!(text.contains(word), "{word}");
        }
        for part in text.split("\"#/$defs/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(!schema["$defs"][name].is_null(), "{name} is not defined");
        }
    }
}

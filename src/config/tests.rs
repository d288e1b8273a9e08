//! What a file and the environment may say, and what is said about their mistakes.

use super::*;

const EXAMPLE: &str = include_str!("../../millrace.yaml");

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn parse(text: &str) -> Result<Config, Vec<ConfigError>> {
    Config::parse(text, Path::new("m.yaml"), [])
}

/// The mistakes as an operator sees them.
fn refusals(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let errors = Config::parse(text, Path::new("m.yaml"), variables(pairs)).expect_err(text);
    errors.iter().map(ToString::to_string).collect()
}

fn with(pairs: &[(&str, &str)]) -> Config {
    Config::load(None, variables(pairs)).expect("valid variables")
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let defaults = format!("{:#?}", Config::default());
    assert_eq!(format!("{:#?}", parse(EXAMPLE).unwrap()), defaults);
    for empty in ["", "# nothing\n", "lane:\n", "inputs:\n"] {
        assert_eq!(format!("{:#?}", parse(empty).unwrap()), defaults, "{empty:?}");
    }
}

/// Every key of the table stands in the shipped file, once, under a comment that says what it is, its default
/// (which is the value below) and what is allowed, in the words of the error.
#[test]
fn the_shipped_file_explains_every_key() {
    let mut explained = Vec::new();
    let (mut section, mut comment) = (String::new(), String::new());
    for line in EXAMPLE.lines() {
        if let Some(words) = line.trim_start().strip_prefix('#') {
            comment.push_str(words);
            continue;
        }
        let Some((name, value)) = line.split_once(": ").or_else(|| line.strip_suffix(':').map(|n| (n, "")))
        else {
            assert!(line.is_empty(), "{line:?} is neither a key nor a comment");
            comment.clear();
            continue;
        };
        if !name.starts_with(' ') {
            section.clear();
        }
        if value.is_empty() {
            section = format!("{name}.");
            comment.clear();
            continue;
        }
        let path = format!("{section}{}", name.trim_start());
        let allowed = KEYS.iter().find(|key| key.path == path).map_or("a list of inputs", |key| key.allowed);
        let default = if path == "hosts.deny" { "see below" } else { value };
        assert!(comment.contains(&format!(" Default: {default}. Allowed: {allowed}")), "{path}: {comment}");
        assert!(comment.find(" Default: ").is_some_and(|at| at > 10), "{path} needs a sentence: {comment}");
        explained.push(path);
        comment.clear();
    }
    let mut known: Vec<&str> = KEYS.iter().map(|key| key.path).chain(["inputs"]).collect();
    known.sort_unstable();
    explained.sort_unstable();
    assert_eq!(explained, known);
}

#[test]
fn every_key_is_put_in_its_place() {
    let config = parse(
        "api: {listen: '[::]:9000'}
shards: 3
pin_shards: false
lane: {max_seconds: 4, max_mb: 16}
input: {stall_after_s: 0.5, rcvbuf_kb: 1000}
output: {delay_ms: 40}
reconnect: {delay_s: 2, cap_s: 20, jitter: 1, max_attempts: 7, fatal_retry_s: 0}
dial: {per_host: 1, total: 2}
hosts: {deny: [10.0.0.0/8, '::1', '::ffff:1.2.3.4']}
data_dir: /srv/millrace
media_roots: [clips, /mnt/nas]
udp_port_range: 6000-6001
srt_port_range: 7000-7001
limits: {max_outputs_per_input: 20, max_sessions: 50}
log: {level: debug}
inputs: [{name: a, url: 'udp://:5000'}]
",
    )
    .unwrap();
    assert_eq!(config.listen, "[::]:9000".parse().unwrap());
    assert_eq!((config.shards, config.pin_shards), (Some(3), false));
    assert_eq!(config.lane, LaneLimits { time: Duration::from_secs(4), bytes: 16_000_000 });
    assert_eq!((config.stall_after, config.rcvbuf), (Duration::from_millis(500), 1_000_000));
    assert_eq!(config.delay, Delay::Ms40);
    let cap = Duration::from_secs(20);
    let reconnect = Reconnect { delay: 2, cap, jitter: 1.0, max_attempts: 7, fatal_retry: None };
    assert_eq!(config.reconnect, reconnect);
    assert_eq!(config.dial, DialLimits { per_host: 1, total: 2 });
    let denied = [("10.0.0.0", 8), ("::1", 128), ("1.2.3.4", 32)];
    assert_eq!(config.denied_hosts, denied.map(|(address, prefix)| (address.parse().unwrap(), prefix)));
    assert_eq!(config.data_dir, Path::new("/srv/millrace"));
    assert_eq!(config.media_roots, [Path::new("clips"), Path::new("/mnt/nas")]);
    assert_eq!((config.udp_ports.clone(), config.max_outputs_per_input), (6000..=6001, Some(20)));
    assert_eq!((config.srt_ports.clone(), config.max_sessions), (7000..=7001, 50));
    assert_eq!((config.log_level, config.inputs.len()), (tracing::Level::DEBUG, 1));
    let rules = config.rules();
    assert_eq!((rules.udp_ports, rules.max_outputs_per_input), (6000..=6001, Some(20)));
    assert_eq!((rules.reconnect_delay, rules.max_reconnect_attempts), (2, 7));
    assert_eq!((rules.srt_ports, rules.lane), (Some(7000..=7001), Duration::from_secs(4)));
}

#[test]
fn what_is_not_allowed_is_refused_with_line_key_and_range() {
    for (text, expected) in [
        ("shards: -1", "m.yaml:1: shards: must be a whole number from 0 to 256; 0 = one per core, not -1"),
        (
            "\nshards: many",
            "m.yaml:2: shards: must be a whole number from 0 to 256; 0 = one per core, not 'many'",
        ),
        ("pin_shards: yes", "m.yaml:1: pin_shards: must be true or false, not 'yes'"),
        ("lane:\n  max_mb: 4097\n", "m.yaml:2: lane.max_mb: must be a whole number from 1 to 4096, not 4097"),
        ("lane:\n  max_mb: 1.5", "m.yaml:2: lane.max_mb: must be a whole number from 1 to 4096, not 1.5"),
        ("lane:\n  max_mb:\n", "m.yaml:2: lane.max_mb: must be a whole number from 1 to 4096, not nothing"),
        (
            "lane:\n  max_mb:\n  - 1\n",
            "m.yaml:2: lane.max_mb: must be a whole number from 1 to 4096, not a list",
        ),
        ("lane: 8", "m.yaml:1: lane: must be a map of max_seconds, max_mb, not 8"),
        (
            "input: {stall_after_s: 0}",
            "m.yaml:1: input.stall_after_s: must be a number from 0.1 to 3600, not 0",
        ),
        (
            "input: {stall_after_s: .nan}",
            "m.yaml:1: input.stall_after_s: must be a number from 0.1 to 3600, not NaN",
        ),
        ("output: {delay_ms: 15}", "m.yaml:1: output.delay_ms: must be 0, 5, 10, 20 or 40, not 15"),
        ("reconnect: {jitter: 1.1}", "m.yaml:1: reconnect.jitter: must be a number from 0 to 1, not 1.1"),
        ("log: {level: loud}", "m.yaml:1: log.level: must be error, warn, info, debug or trace, not 'loud'"),
        ("data_dir: ''", "m.yaml:1: data_dir: must be the path of a folder, not nothing"),
        (
            "api: {listen: 8080}",
            "m.yaml:1: api.listen: must be ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080; port 0 = any free \
             one, not a number or flag (put it in quotes)",
        ),
        (
            "hosts:\n  deny:\n    - 10.0.0.0/8\n    - 10.0.0.0/33",
            "m.yaml:2: hosts.deny: must be a list of ADDRESS or ADDRESS/PREFIX; [] = none, not '10.0.0.0/33'",
        ),
        (
            "udp_port_range: 5100-5000",
            "m.yaml:1: udp_port_range: must be FIRST-LAST, two ports from 1024 to 65535, such as 5000-5100, not \
             '5100-5000'",
        ),
        (
            "srt_port_range: 8891",
            "m.yaml:1: srt_port_range: must be FIRST-LAST, two ports from 1024 to 65535, such as 8891-8990, not a \
             number or flag (put it in quotes)",
        ),
        ("- a", "m.yaml:1: must be a map of keys: see the shipped millrace.yaml"),
    ] {
        assert_eq!(refusals(text, &[]), [expected], "{text}");
    }
}

#[test]
fn unknown_keys_are_refused_and_the_nearest_is_named() {
    for (text, expected) in [
        ("shard: 1", "m.yaml:1: shard: there is no such key, did you mean shards?"),
        ("lane:\n  max_mbs: 1", "m.yaml:2: lane.max_mbs: there is no such key, did you mean lane.max_mb?"),
        ("max_mb: 1", "m.yaml:1: max_mb: there is no such key, did you mean lane.max_mb?"),
        ("input: []\n", "m.yaml:1: input: must be a map of stall_after_s, rcvbuf_kb, not a list"),
        ("input_s: []\n", "m.yaml:1: input_s: there is no such key, did you mean inputs?"),
        ("colour: red\n", "m.yaml:1: colour: there is no such key"),
        (
            "inputs:\n  - {name: a, url: 'udp://:5000', enable: true}",
            "m.yaml:2: inputs[0].enable: there is no such key, did you mean enabled?; known are name, url, enabled, \
             outputs",
        ),
    ] {
        assert_eq!(refusals(text, &[]), [expected], "{text}");
    }
}

#[test]
fn what_is_no_yaml_is_refused_with_its_line() {
    for (text, line) in [
        ("shards: 1\nlane: [1, 2\nlog: 3\n", 3),
        ("lane:\n\tmax_mb: 2\n", 2),
        ("shards: 1\nshards: 2\n", 2),
        ("shards: 1\n---\nshards: 2\n", 3),
        ("shards: *nothing\n", 1),
        ("\nlog: {level: \"warn\n", 2),
    ] {
        let refusals = refusals(text, &[]);
        let start = format!("m.yaml:{line}: this is not valid YAML: ");
        assert!(refusals.len() == 1 && refusals[0].starts_with(&start), "{text:?}: {refusals:?}");
        assert!(refusals[0].len() > start.len() && !refusals[0].contains('\n'), "{refusals:?}");
    }
}

#[test]
fn inputs_and_outputs_are_judged_by_the_store_and_put_into_it() {
    let config = parse(
        "inputs:
  - name: drone
    url: udp://239.1.1.1:5000
    outputs:
      - {name: wall, url: 'udp://10.0.0.7:6000', reconnect_delay: 10}
      - {name: tape, url: 'file:tape.ts', enabled: false, auto_reconnect: false, max_reconnect_attempts: 3}
  - {name: no, url: 'rtp://:5002', enabled: false}
",
    )
    .unwrap();
    let mut store = Store::new(config.rules(), config.roots());
    config.seed(&mut store, SystemTime::UNIX_EPOCH).unwrap();
    let inputs: Vec<_> = store.inputs().map(|input| (input.id, &*input.name, input.desired)).collect();
    assert_eq!(inputs, [(1, "drone", Desired::Running), (2, "no", Desired::Stopped)]);
    let outputs: Vec<_> = store
        .outputs(1)
        .map(|o| (&*o.name, o.desired, o.auto_reconnect, o.reconnect_delay, o.max_reconnect_attempts))
        .collect();
    assert_eq!(outputs, [("wall", Desired::Running, true, 10, 0), ("tape", Desired::Stopped, false, 5, 3)]);
}

#[test]
fn every_mistake_of_inputs_and_outputs_is_reported_on_its_line() {
    let refusals = refusals(
        "lane: {max_mb: 0}
inputs:
  - name: a
    url: udp://:99999
    outputs:
      - name: o
        url: udp://h:1?ttl=0
      - url: udp://h:1
      - name: p
        url: udp://h:1
        reconnect_delay: 301
        enabled: perhaps
      - {name: p, url: 5}
      - {name: q, url: 'file:../x.ts'}
      - {name: r, url: 'udp://h:1'}
      - {name: r, url: 'udp://h:2'}
  - {name: b, url: 'udp://:5000'}
  - {name: b, url: 'udp://:5001'}
  - 7
limit: {}
",
        &[],
    );
    let expected = [
        "m.yaml:1: lane.max_mb: must be a whole number from 1 to 4096, not 0",
        "m.yaml:4: inputs[0].url: ",
        "m.yaml:7: inputs[0].outputs[0].url: option 'ttl' must be a whole number from 1 to 255",
        "m.yaml:8: inputs[0].outputs[1].name: is missing",
        "m.yaml:11: inputs[0].outputs[2].reconnect_delay: ",
        "m.yaml:12: inputs[0].outputs[2].enabled: must be true or false, not 'perhaps'",
        "m.yaml:13: inputs[0].outputs[3].url: must be text, not a number or flag (put it in quotes)",
        "m.yaml:14: inputs[0].outputs[4].url: ",
        "m.yaml:16: inputs[0].outputs[6]",
        "m.yaml:18: inputs[2]",
        "m.yaml:19: inputs[3]: must be a map of name, url, enabled, outputs, not 7",
        "m.yaml:20: limit: there is no such key",
    ];
    assert_eq!(refusals.len(), expected.len(), "{refusals:#?}");
    for (refusal, expected) in refusals.iter().zip(expected) {
        assert!(refusal.starts_with(expected), "{refusal}\n{expected}");
    }
}

#[test]
fn limits_of_the_environment_hold_for_the_inputs_of_the_file() {
    let text = "inputs:
  - name: a
    url: udp://:5000
    outputs:
      - {name: o, url: 'udp://h:1'}
      - {name: p, url: 'udp://h:2'}
";
    assert!(parse(text).is_ok());
    let refusals = refusals(text, &[("MAX_OUTPUTS_PER_INPUT", "1")]);
    assert_eq!(refusals.len(), 1);
    assert!(refusals[0].starts_with("m.yaml:6: inputs[0].outputs[1]: "), "{refusals:?}");
}

#[test]
fn srt_urls_are_judged_beside_what_the_file_says_elsewhere() {
    let refusals = refusals(
        "lane: {max_seconds: 2}
inputs:
  - name: a
    url: srt://:8890?latency=1001
  - name: b
    url: srt://:8890
    outputs:
      - {name: o, url: 'srt://:8890?streamid=b'}
      - {name: p, url: 'srt://:8890'}
      - {name: q, url: 'srt://h:1?passphrase=***'}
      - {name: r, url: 'srt://h:1?passphrase=Zebra&latency=1000'}
",
        &[],
    );
    let expected = [
        "m.yaml:4: inputs[0].url: a latency of 1001 ms and 1 s for retransmits do not fit into the 2 s",
        "m.yaml:9: inputs[1].outputs[1].url: output 'o' of input 'b' has the name 'b' on port 8890",
        "m.yaml:10: inputs[1].outputs[2].url: *** stands for a secret that is stored, and no passphrase is",
        "m.yaml:11: inputs[1].outputs[3].url: option 'passphrase' must be 10 to 79 bytes long",
    ];
    assert_eq!(refusals.len(), expected.len(), "{refusals:#?}");
    for (refusal, expected) in refusals.iter().zip(expected) {
        assert!(refusal.starts_with(expected) && !refusal.contains("Zebra"), "{refusal}\n{expected}");
    }
}

#[test]
fn no_mistake_repeats_a_secret() {
    let text = "inputs:
  - name: a
    url: udp://user:Zebra@h:1
    outputs:
      - {name: o, url: 'rtmp://h/live/Zebra?hold=x'}
      - {name: p, url: ['udp://Zebra']}
";
    let refusals = refusals(text, &[]);
    assert_eq!(refusals.len(), 3);
    assert!(refusals.iter().all(|refusal| !refusal.contains("Zebra")), "{refusals:?}");
}

#[test]
fn variables_are_stronger_than_the_file() {
    let text = "lane: {max_mb: 16, max_seconds: 4}\nlog: {level: warn}\n";
    let pairs = [("MILLRACE_LANE_MAX_MB", "64"), ("MILLRACE_MEDIA_ROOTS", "a, /b"), ("TERM", "dumb")];
    let config = Config::parse(text, Path::new("m.yaml"), variables(&pairs)).unwrap();
    assert_eq!(config.lane, LaneLimits { time: Duration::from_secs(4), bytes: 64_000_000 });
    assert_eq!(config.media_roots, [Path::new("a"), Path::new("/b")]);
    assert_eq!(config.log_level, tracing::Level::WARN);
    assert!(with(&[("MILLRACE_HOSTS_DENY", "")]).denied_hosts.is_empty());
}

#[test]
fn every_key_has_a_variable_that_reaches_it() {
    // Any text is a path.
    let config = with(&[
        ("MILLRACE_DATA_DIR", "a b"),
        ("MILLRACE_MEDIA_ROOTS", "c,d"),
        ("MILLRACE_TLS_CERTIFICATE", "e"),
        ("MILLRACE_TLS_KEY", "none"),
    ]);
    assert_eq!((config.data_dir, config.media_roots), ("a b".into(), vec!["c".into(), "d".into()]));
    assert_eq!((config.tls_certificate, config.tls_key), (Some("e".into()), None));
    let paths = ["data_dir", "media_roots", "tls.certificate", "tls.key"];
    for key in KEYS.iter().filter(|key| !paths.contains(&key.path)) {
        let variable = key.variable();
        let refusals = refusals("", &[(&variable, "a b")]);
        assert!(refusals[0].starts_with(&format!("{variable}: {}: must be ", key.path)), "{refusals:?}");
    }
}

#[test]
fn the_names_of_the_contract_are_read_and_weaker_than_ours() {
    let config = with(&[
        ("PORT", "9000"),
        ("LOG_LEVEL", "WARNING"),
        ("DEFAULT_RECONNECT_DELAY", "7"),
        ("MAX_RECONNECT_ATTEMPTS", "3"),
        ("MAX_OUTPUTS_PER_INPUT", "20"),
        ("UDP_PORT_RANGE_START", "6000"),
        ("UDP_PORT_RANGE_END", "6100"),
        ("SRT_PORT_RANGE_START", "8890"),
        ("SRT_PORT_RANGE_END", "8899"),
    ]);
    assert_eq!(config.srt_ports, 8890..=8899);
    assert_eq!(config.listen, "127.0.0.1:9000".parse().unwrap());
    assert_eq!(config.log_level, tracing::Level::WARN);
    assert_eq!((config.reconnect.delay, config.reconnect.max_attempts), (7, 3));
    assert_eq!((config.max_outputs_per_input, config.udp_ports), (Some(20), 6000..=6100));

    let both = with(&[("PORT", "9000"), ("MILLRACE_API_LISTEN", "0.0.0.0:9001"), ("LOG_LEVEL", "")]);
    assert_eq!(both.listen, "0.0.0.0:9001".parse().unwrap());
    assert_eq!(both.log_level, tracing::Level::INFO);
}

#[test]
fn wrong_variables_are_refused_by_name() {
    assert_eq!(
        refusals("shards: x", &[("MILLRACE_LANE_MAX_MBS", "1"), ("PORT", "http"), ("MILLRACE_SHARDS", "a")]),
        [
            "m.yaml:1: shards: must be a whole number from 0 to 256; 0 = one per core, not 'x'",
            "MILLRACE_LANE_MAX_MBS: there is no such variable, did you mean MILLRACE_LANE_MAX_MB?",
            "MILLRACE_SHARDS: shards: must be a whole number from 0 to 256; 0 = one per core, not 'a'",
            "PORT: api.listen: must be a port from 1 to 65535, not 'http'",
        ]
    );
    assert_eq!(
        refusals("", &[("UDP_PORT_RANGE_START", "6000")]),
        [
            "UDP_PORT_RANGE_START and UDP_PORT_RANGE_END: udp_port_range: the first port (6000) is behind the last \
          (5100)"
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let errors = Config::load(Some(Path::new("/nowhere/m.yaml")), []).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().starts_with("/nowhere/m.yaml: cannot be read: "), "{}", errors[0]);
}

use super::*;
use crate::policy::Policy;
use std::time::Duration;
use tonic::Code;
use waypost_balance::{LeastRequest, RingHash};

fn parse(json: &str) -> Result<ServiceConfig, InvalidServiceConfig> {
    json.parse()
}

#[test]
fn methods_are_found_by_name_then_by_service_then_by_default() {
    let config = parse(
        r#"{"methodConfig": [
            {"name": [{"service": "a.A", "method": "M"}], "timeout": "1s"},
            {"name": [{"service": "a.A"}, {"service": "b.B", "method": ""}], "timeout": "2s", "waitForReady": true},
            {"name": [{}], "timeout": "3s"},
            {"timeout": "4s"}
        ]}"#,
    )
    .unwrap();
    let timeout = |path: &str| config.method(path).and_then(|method| method.timeout).unwrap().as_secs();
    assert_eq!(
        ["/a.A/M", "/a.A/N", "/b.B/M", "/c.C/M", "/a.AB/M", "/", "", "a.A"].map(timeout),
        [1, 2, 2, 3, 3, 3, 3, 3]
    );
    assert_eq!(config.method("/b.B/M").unwrap().wait_for_ready, Some(true));
    assert!(parse("{}").unwrap().method("/a.A/M").is_none());
}

#[test]
fn messages_may_be_only_so_long() {
    let config = parse(
        r#"{"methodConfig": [
            {"name": [{"service": "a.A"}], "maxRequestMessageBytes": 1024, "maxResponseMessageBytes": "4294967295"},
            {"name": [{}], "maxRequestMessageBytes": 0}
        ]}"#,
    )
    .unwrap();
    let limits = |path: &str| {
        let method = config.method(path).unwrap();
        (method.max_request_message_bytes, method.max_response_message_bytes)
    };
    assert_eq!(limits("/a.A/M"), (Some(1024), Some(u32::MAX)));
    assert_eq!(limits("/b.B/M"), (Some(0), None));
}

#[test]
fn a_retry_policy_is_read_as_a6_says() {
    let config = parse(
        r#"{"methodConfig": [{"name": [{}], "retryPolicy": {
            "maxAttempts": "9", "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 1.5,
            "retryableStatusCodes": ["unavailable", 10]}}],
            "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1239},
            "healthCheckConfig": {"serviceName": "greeter"}}"#,
    )
    .unwrap();
    let Some(Resend::Retry(rule)) = &config.method("/a/b").unwrap().resend else { panic!("{config:?}") };
    assert_eq!(rule.max_attempts, 5, "more counts as five");
    assert_eq!(rule.initial_backoff, Duration::from_millis(100));
    assert_eq!(rule.codes, [Code::Unavailable, Code::Aborted].into_iter().collect());
    assert_eq!(config.retry_throttling, Some(Throttling { max_tokens: 10, token_ratio_thousandths: 123 }));
    assert_eq!(config.health_check.as_deref(), Some("greeter"));
}

#[test]
fn the_first_known_policy_counts() {
    let chosen = |list: &str| {
        let config = parse(&format!(r#"{{"loadBalancingConfig": {list}}}"#)).unwrap();
        config.load_balancing.map(|chosen| chosen.policy.map(|policy| policy.name()))
    };
    assert_eq!(chosen(r#"[{"grpclb": {}}, {"round_robin": {}}, {"random": 5}]"#), Some(Some("round_robin")));
    assert_eq!(chosen(r#"[{"pick_first": {"shuffleAddressList": true}}]"#), Some(None));
    assert_eq!(chosen("[]"), None);
    for (name, policy) in [
        ("weighted_round_robin", "weighted_round_robin"),
        ("least_request_experimental", "least_request"),
        ("ring_hash_experimental", "ring_hash"),
        ("peak_ewma", "peak_ewma"),
        ("maglev", "maglev"),
        ("random", "random"),
    ] {
        assert_eq!(chosen(&format!(r#"[{{"{name}": {{"unknown": 1}}}}]"#)), Some(Some(policy)), "{name}");
    }
    let by_name = parse(r#"{"loadBalancingPolicy": "ROUND_ROBIN"}"#).unwrap().load_balancing.unwrap();
    assert_eq!(by_name.policy.unwrap().name(), "round_robin");
    let hashed =
        parse(r#"{"loadBalancingConfig": [{"ring_hash_experimental": {"requestHashHeader": "X-User"}}]}"#)
            .unwrap();
    assert_eq!(hashed.load_balancing.unwrap().policy.unwrap().hash_header().unwrap(), "x-user");
}

#[test]
fn options_of_policies_are_taken() {
    let rule = |entry: &str| {
        let config = parse(&format!(r#"{{"loadBalancingConfig": [{entry}]}}"#)).unwrap();
        format!("{:?}", config.load_balancing.unwrap().policy.unwrap())
    };
    let same = |entry: &str, policy: Policy| assert_eq!(rule(entry), format!("{policy:?}"), "{entry}");
    let least = LeastRequest::default;
    same(r#"{"least_request_experimental": {}}"#, least().into());
    same(r#"{"least_request_experimental": {"choiceCount": 5}}"#, least().with_choices(5).into());
    same(r#"{"least_request_experimental": {"choiceCount": 11}}"#, least().with_choices(10).into());
    let ring = RingHash::default;
    same(r#"{"ring_hash_experimental": {}}"#, ring().into());
    same(r#"{"ring_hash_experimental": {"points": 64}}"#, ring().with_points(64).into());
    let sized = |least, most| ring().with_ring_size(least, most).into();
    same(r#"{"ring_hash_experimental": {"minRingSize": 10, "maxRingSize": 20}}"#, sized(10, 20));
    same(r#"{"ring_hash_experimental": {"minRingSize": 2048}}"#, sized(2048, 4096));
    same(r#"{"ring_hash_experimental": {"minRingSize": 8388608}}"#, sized(4096, 4096));
    same(r#"{"ring_hash_experimental": {"maxRingSize": 100}}"#, sized(100, 100));
    same(r#"{"ring_hash_experimental": {"maxRingSize": 8388608}}"#, sized(1024, 4096));
}

#[test]
fn outlier_detection_is_a50s() {
    let config = parse(
        r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {
            "interval": "1s", "baseEjectionTime": "2s", "maxEjectionTime": "3s", "maxEjectionPercent": 40,
            "successRateEjection": {"stdevFactor": 1500, "enforcementPercentage": 40, "minimumHosts": 3, "requestVolume": 7},
            "failurePercentageEjection": {"enforcementPercentage": 0},
            "childPolicy": [{"mystery": {}}, {"least_request_experimental": {"choiceCount": 2}}]}}]}"#,
    )
    .unwrap();
    let chosen = config.load_balancing.unwrap();
    assert_eq!(chosen.policy.unwrap().name(), "least_request");
    let outliers = chosen.outliers.unwrap();
    assert_eq!((outliers.interval, outliers.max_ejection_percent), (Duration::from_secs(1), 40));
    assert_eq!((outliers.base_ejection_time.as_secs(), outliers.max_ejection_time.as_secs()), (2, 3));
    let rate = outliers.success_rate.unwrap();
    assert!((rate.stdev_factor - 1.5).abs() < 1e-9);
    assert_eq!((rate.minimum_hosts, rate.request_volume, rate.enforcement_percentage), (3, 7, 40));
    assert_eq!((outliers.failure_percentage, outliers.consecutive_failures), (None, None));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let retry = |part: &str| {
        let whole = r#""maxAttempts": 3, "initialBackoff": "1s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["ABORTED"]"#;
        let (name, _) = part.split_once(':').unwrap();
        let others: Vec<_> = whole.split(", ").filter(|field| !field.starts_with(name)).collect();
        format!(r#"{{"methodConfig": [{{}}, {{"retryPolicy": {{{}, {part}}}}}]}}"#, others.join(", "))
    };
    for (json, place) in [
        ("", ""),
        ("{} x", ""),
        ("[]", ""),
        (r#"{"methodConfig": 3}"#, "methodConfig"),
        (r#"{"methodConfig": [{"timeout": 3}]}"#, "methodConfig[0].timeout"),
        (r#"{"methodConfig": [{"timeout": "-1s"}]}"#, "methodConfig[0].timeout"),
        (r#"{"methodConfig": [{"maxRequestMessageBytes": -1}]}"#, "methodConfig[0].maxRequestMessageBytes"),
        (
            r#"{"methodConfig": [{"maxResponseMessageBytes": 4294967296}]}"#,
            "methodConfig[0].maxResponseMessageBytes",
        ),
        (r#"{"methodConfig": [{"name": [{"method": "M"}]}]}"#, "methodConfig[0].name[0]"),
        (
            r#"{"methodConfig": [{"name": [{}]}, {"name": [{"service": "a"}, {}]}]}"#,
            "methodConfig[1].name[1]",
        ),
        (r#"{"methodConfig": [{"retryPolicy": {}, "hedgingPolicy": {}}]}"#, "methodConfig[0]"),
        (&retry(r#""maxAttempts": 1"#), "methodConfig[1].retryPolicy.maxAttempts"),
        (&retry(r#""maxAttempts": 1.5"#), "methodConfig[1].retryPolicy.maxAttempts"),
        (&retry(r#""maxAttempts": null"#), "methodConfig[1].retryPolicy.maxAttempts"),
        (&retry(r#""initialBackoff": "0s""#), "methodConfig[1].retryPolicy.initialBackoff"),
        (&retry(r#""maxBackoff": null"#), "methodConfig[1].retryPolicy.maxBackoff"),
        (&retry(r#""backoffMultiplier": 0"#), "methodConfig[1].retryPolicy.backoffMultiplier"),
        (&retry(r#""retryableStatusCodes": []"#), "methodConfig[1].retryPolicy.retryableStatusCodes"),
        (
            &retry(r#""retryableStatusCodes": ["SOMETIMES"]"#),
            "methodConfig[1].retryPolicy.retryableStatusCodes[0]",
        ),
        (
            r#"{"methodConfig": [{"hedgingPolicy": {"hedgingDelay": "1s"}}]}"#,
            "methodConfig[0].hedgingPolicy.maxAttempts",
        ),
        (r#"{"retryThrottling": {"maxTokens": 1001, "tokenRatio": 1}}"#, "retryThrottling.maxTokens"),
        (r#"{"retryThrottling": {"maxTokens": 10, "tokenRatio": -1}}"#, "retryThrottling.tokenRatio"),
        (r#"{"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.0004}}"#, "retryThrottling.tokenRatio"),
        (r#"{"loadBalancingConfig": [{"a": {}, "b": {}}]}"#, "loadBalancingConfig[0]"),
        (r#"{"loadBalancingConfig": [{"a": {}}, {"b": {}}]}"#, "loadBalancingConfig"),
        (r#"{"loadBalancingPolicy": "best"}"#, "loadBalancingPolicy"),
        (
            r#"{"loadBalancingConfig": [{"peak_ewma": {"decay": 1}}]}"#,
            "loadBalancingConfig[0].peak_ewma.decay",
        ),
        (
            r#"{"loadBalancingConfig": [{"least_request_experimental": {"choiceCount": 1}}]}"#,
            "loadBalancingConfig[0].least_request_experimental.choiceCount",
        ),
        (
            r#"{"loadBalancingConfig": [{"ring_hash_experimental": {"minRingSize": 9, "maxRingSize": 8}}]}"#,
            "loadBalancingConfig[0].ring_hash_experimental.minRingSize",
        ),
        (
            r#"{"loadBalancingConfig": [{"ring_hash_experimental": {"minRingSize": 0}}]}"#,
            "loadBalancingConfig[0].ring_hash_experimental.minRingSize",
        ),
        (
            r#"{"loadBalancingConfig": [{"ring_hash_experimental": {"maxRingSize": 8388609}}]}"#,
            "loadBalancingConfig[0].ring_hash_experimental.maxRingSize",
        ),
        (
            r#"{"loadBalancingConfig": [{"ring_hash_experimental": {"maxRingSize": 8, "points": 8}}]}"#,
            "loadBalancingConfig[0].ring_hash_experimental.points",
        ),
        (
            r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {"maxEjectionPercent": 101}}]}"#,
            "loadBalancingConfig[0].outlier_detection_experimental.maxEjectionPercent",
        ),
        (
            r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {"childPolicy": [{"x": {}}]}}]}"#,
            "loadBalancingConfig[0].outlier_detection_experimental.childPolicy",
        ),
    ] {
        let error = parse(json).unwrap_err();
        assert_eq!(error.path, place, "{json}: {error}");
        assert!(error.to_string().contains(place) && !error.problem.is_empty(), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"[\[\]{}",:a-z0-9.\-]{0,80}"#) {
        let _ = parse(&text);
        let _ = parse(&format!(r#"{{"methodConfig": [{text}], "loadBalancingConfig": [{text}]}}"#));
    }
}

//! `docs/status.schema.json` says what the JSON is, walked by hand: as much of JSON Schema as it uses.

use serde_json::Value;

use super::support::{balance, call, instance, json, now, service};
use crate::{Client, status::StatusPage, testing::Registry};

fn check(schema: &Value, root: &Value, value: &Value, at: &str) {
    let Some(schema) = schema.as_object() else {
        panic!("{at}: no schema");
    };
    for (word, rule) in schema {
        match &**word {
            "$schema" | "$id" | "title" | "description" | "$defs" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                check(&root["$defs"][name], root, value, at);
            }
            "type" => {
                let kinds = match rule {
                    Value::Array(kinds) => kinds.clone(),
                    one => vec![one.clone()],
                };
                let is = |kind: &Value| match kind.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("{at}: type {other}"),
                };
                assert!(kinds.iter().any(is), "{at}: {value} is no {rule}");
            }
            "enum" => assert!(
                rule.as_array().unwrap().contains(value),
                "{at}: {value} is none of {rule}"
            ),
            "minimum" => assert!(
                value.as_f64().is_none_or(|v| v >= rule.as_f64().unwrap()),
                "{at}: {value}"
            ),
            "maximum" => assert!(
                value.as_f64().is_none_or(|v| v <= rule.as_f64().unwrap()),
                "{at}: {value}"
            ),
            "maxItems" => assert!(
                value.as_array().unwrap().len() as u64 <= rule.as_u64().unwrap(),
                "{at}"
            ),
            "required" => {
                for name in rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|_| value.is_object())
                {
                    assert!(
                        value.get(name.as_str().unwrap()).is_some(),
                        "{at}: no {name}"
                    );
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(rule, root, value, &format!("{at}/{name}"));
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(*rule, Value::Bool(false));
                for name in value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name)
                {
                    assert!(
                        schema["properties"].get(name).is_some(),
                        "{at}: {name} is not described"
                    );
                }
            }
            "items" => {
                for (n, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(rule, root, value, &format!("{at}/{n}"));
                }
            }
            other => panic!("{at}: the test does not know {other}"),
        }
    }
}

#[tokio::test]
async fn the_json_is_what_its_schema_says() {
    let schema: Value =
        serde_json::from_str(include_str!("../../../docs/status.schema.json")).unwrap();
    let registry = Registry::start().await.unwrap();
    let nacos = Client::connect(&registry.addr()).await.unwrap();
    let (mut writer, orders) = service("orders");
    let listed = instance("10.0.0.1:80")
        .with_metadata([("version", "1"), ("token", "x")].into_iter().collect());
    writer.publish(
        [listed.clone(), instance("10.0.0.2:80").with_enabled(false)],
        now(),
    );
    let balance = balance(&orders);
    let status = StatusPage::new(&nacos).with(&balance);
    call(&balance, 3).await;
    writer.publish([listed], now());
    for uri in [
        "/",
        "/?service=orders",
        "/?filter=none",
        "/?service=orders&filter=none",
    ] {
        let page = json(&status, uri).await;
        check(&schema, &schema, &page, "");
        let is_list = !uri.contains("service");
        assert_eq!(
            (
                page.get("services").is_some(),
                page.get("service").is_some()
            ),
            (is_list, !is_list)
        );
    }
    // And it holds something.
    let mut page = json(&status, "/").await;
    page["registries"][0]["state"] = "perhaps".into();
    let bad = std::panic::catch_unwind(|| check(&schema, &schema, &page, ""));
    assert!(bad.is_err());
}

//! The grammar as a JSON schema, for editors and for the NixOS module.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Value, json};

use super::file::File;

/// The JSON schema (draft 2020-12) of one file.
pub fn json_schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    RecursiveTransform(without_null).transform(&mut schema);
    schema.insert("title".to_owned(), json!("Virshle configuration"));
    schema.to_value()
}

/// TOML has no null: a key is there or not. (A table's default follows from its keys'.)
fn without_null(schema: &mut Schema) {
    if schema.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| *choice != json!({ "type": "null" }));
        if let [Value::Object(one)] = choices.as_slice() {
            let one = one.clone();
            schema.remove("anyOf");
            for (key, value) in one {
                schema.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::of_text;
    use std::path::Path;

    /// Every key of the grammar.
    const WHOLE: &str = r#"
        [node]
        hypervisor = "auto"
        accel = "auto"
        ovs-db = "unix:/run/openvswitch/db.sock"
        user = "virshle-vm"
        hosts-file = "/etc/hosts"
        [node.cloud-hypervisor]
        program = "/path"
        firmware = "/path/CLOUDHV.fd"
        [node.qemu]
        program = "/path"
        firmware = "/path/OVMF_CODE_4M.fd"
        vars = "/path/OVMF_VARS_4M.fd"

        [[network]]
        name = "main"
        type = "ovs"
        bridge = "vsbr0"
        create = false
        subnet = "10.44.0.0/24"
        gateway = "10.44.0.1"
        dns = ["10.44.0.1"]

        [[network]]
        name = "lab"
        type = "ovs"
        bridge = "lab0"
        datapath = "auto"
        subnet = "10.45.0.0/24"
        subnet6 = "fd12:3456:789a:1::/64"
        domain = "lab"
        dhcp = true
        nat = false
        isolated = true
        vlan = 5
        mtu = 1400

        [[network]]
        name = "v4"
        bridge = "lab1"
        subnet = "10.46.0.0/24"
        subnet6 = false

        [[network]]
        name = "site"
        type = "bridge"
        bridge = "br0"
        uplink = "eth0"

        [[image]]
        name = "debian-12"
        path = "~/images/debian-12.qcow2"

        [[template.vm]]
        name = "xs"
        vcpu = 1
        vram = 2
        hypervisor = "qemu"
        kernel = "/path"
        initramfs = "/path"
        cmdline = "console=ttyS0 root=/dev/vda1"
        restart = "on-crash"
        watchdog = true
        autostart = true
        autostart-order = 10
        autostart-delay = 5
        stop-timeout = 120
        protect = false
        vcpu-max = 4
        vram-max = 4
        limits = { cpus = 1.5, memory = "3G" }
        labels = { role = "db" }
        [[template.vm.disk]]
        name = "os"
        image = "debian-12"
        size = "50G"
        readonly = false
        [[template.vm.net]]
        name = "main"
        [template.vm.net.type.vhost]
        [[template.vm.net]]
        name = "lab"
        type = "tap"
        address = "10.45.0.10"
        mac = "02:00:00:00:00:01"
        ports = ["127.0.0.1:8080:80", "5353:53/udp"]
        allow = ["tcp/22", "out any"]
        deny = ["udp from 192.0.2.0/24"]
        rate = "100Mbit"
        spoof = false

        [[template.vm]]
        name = "s"
        vcpu = 1
        vram = "512MiB"
        firmware = "/path"
        disk = [{ name = "os", path = "~/os.img" }, { name = "data", size = 1 }]
        net = [{ name = "main", type = "tap" }, { name = "main", type = { tap = {} } }, { name = "u", type.user = {} }]

        [[vm]]
        name = "db"
        template = "xs"
        running = "leave"
        on-remove = "keep"
        user-data = ["ada.toml", "~/bob.toml"]
        vcpu = 2
        vram = 4
        vcpu-max = 8
        vram-max = 6
        hypervisor = "auto"
        kernel = "/path"
        initramfs = "/path"
        cmdline = "quiet"
        restart = "always"
        watchdog = false
        autostart = true
        autostart-order = 20
        autostart-delay = 1
        stop-timeout = 60
        protect = true
        limits = { cpus = 2, memory = "5G" }
        labels = { team = "a" }
        [[vm.disk]]
        name = "os"
        path = "/path"
        size = "60G"
        readonly = false
        [[vm.disk]]
        name = "data"
        image = "debian-12"
        [[vm.net]]
        name = "main"
        [vm.net.type.vhost]
        [[vm.net]]
        name = "lab"
        type = "tap"
        address = "10.45.0.11"
        mac = "02:00:00:00:00:02"
        ports = []
        allow = ["tcp/22"]
        deny = ["tcp/23"]
        rate = "1Gbit"
        spoof = true

        [[vm]]
        name = "web"
        template = "s"
        running = true
        user-data = "ada.toml"
        firmware = "/path"
        net = [{ name = "main" }, { name = "main", type.tap = {} }, { name = "u", type.user = {} }]
    "#;

    /// Follows `$ref`s, and gives each way that a value may be.
    fn choices<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return choices(root, root.pointer(reference.trim_start_matches('#')).expect(reference));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Value::Array(all)) = schema.get(key) {
                return all.iter().flat_map(|one| choices(root, one)).collect();
            }
        }
        vec![schema]
    }

    fn kind_of(value: &toml::Value) -> &'static str {
        match value {
            toml::Value::String(_) => "string",
            toml::Value::Integer(_) => "integer",
            toml::Value::Boolean(_) => "boolean",
            _ => "number",
        }
    }

    /// Marks each schema that the value walks through, and fails on a key that none of them has.
    fn walk(root: &Value, schema: &Value, value: &toml::Value, path: &str, seen: &mut Vec<String>) {
        let choices = choices(root, schema);
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    // Keys that a person makes up are not the grammar's.
                    if let Some(any) = choices.iter().find_map(|one| one.get("additionalProperties")?.get("type")) {
                        assert_eq!(any.as_str(), Some(kind_of(value)), "`{path}.{key}`");
                        continue;
                    }
                    let path = format!("{path}.{key}");
                    let found = choices.iter().find_map(|one| one.get("properties")?.get(key));
                    let found = found.unwrap_or_else(|| panic!("`{path}` is not in the schema"));
                    walk(root, found, value, &path, seen);
                    seen.push(path);
                }
            }
            toml::Value::Array(items) => {
                let found = choices.iter().find_map(|one| one.get("items"));
                let found = found.unwrap_or_else(|| panic!("`{path}` is no list in the schema"));
                items.iter().for_each(|item| walk(root, found, item, path, seen));
            }
            scalar => {
                let name = kind_of(scalar);
                let fits = |one: &&Value| {
                    let kind = one.get("type").and_then(Value::as_str);
                    let word = one.get("enum").and_then(Value::as_array);
                    if let (Some(one), toml::Value::Boolean(on)) = (one.get("const"), scalar) {
                        return *one == json!(on);
                    }
                    (kind == Some(name) || (name == "integer" && kind == Some("number")))
                        && word.is_none_or(|words| words.iter().any(|word| word.as_str() == scalar.as_str()))
                };
                assert!(choices.iter().any(fits), "`{path}` = {scalar} does not fit {schema}");
            }
        }
    }

    /// Every key that the schema has, by the same paths.
    fn keys(root: &Value, schema: &Value, path: &str, all: &mut Vec<String>) {
        for one in choices(root, schema) {
            if let Some(items) = one.get("items") {
                keys(root, items, path, all);
            }
            for (key, value) in one.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let path = format!("{path}.{key}");
                keys(root, value, &path, all);
                all.push(path);
            }
        }
    }

    #[test]
    fn the_schema_has_the_keys_that_the_grammar_reads_and_no_others() {
        of_text(WHOLE).unwrap();
        let schema = json_schema();
        let (mut seen, mut all) = (Vec::new(), Vec::new());
        walk(&schema, &schema, &toml::Value::Table(WHOLE.parse().unwrap()), "", &mut seen);
        keys(&schema, &schema, "", &mut all);
        seen.sort();
        seen.dedup();
        all.sort();
        assert_eq!(seen, all);
    }

    #[test]
    fn the_examples_fit_the_schema() {
        let schema = json_schema();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                walk(&schema, &schema, &toml::Value::Table(text.parse().unwrap()), "", &mut Vec::new());
                read += 1;
            }
        }
        assert!(read >= 6, "{read} examples");
    }

    #[test]
    fn every_table_is_strict_and_every_key_described() {
        fn visit(value: &Value, path: &str) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::Object(properties)) = map.get("properties") {
                        assert_eq!(map.get("additionalProperties"), Some(&json!(false)), "{path}");
                        for (key, property) in properties {
                            let described = property.get("description").is_some();
                            assert!(described, "`{key}` in {path} has no description");
                        }
                    }
                    map.iter().for_each(|(key, value)| visit(value, &format!("{path}/{key}")));
                }
                Value::Array(items) => items.iter().for_each(|item| visit(item, path)),
                Value::Null => panic!("a null in {path}"),
                Value::String(text) => assert_ne!(text, "null", "{path}"),
                _ => {}
            }
        }
        visit(&json_schema(), "#");
    }

    #[test]
    fn the_published_schema_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("public/config.schema.json");
        let regenerate = "write it anew: v config schema > public/config.schema.json";
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {regenerate}"));
        let published: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {regenerate}"));
        let schema = json_schema();
        assert!(published == schema, "{} is out of date; {regenerate}\n{schema:#}", path.display());
    }
}

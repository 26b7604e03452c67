//! Manifests on their way through `leeward inject`.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leeward"));
    command.arg("inject").args(arguments).env_remove("LEEWARD_IMAGE");
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn injected(input: &str) -> String {
    let output = run(&["--image", "leeward:1", "-f", "-"], input);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), error.as_str()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(code: i32, arguments: &[&str], input: &str) -> String {
    let output = run(arguments, input);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(code), &b""[..]));
    String::from_utf8(output.stderr).unwrap()
}

const OTHERS: &str = r#"---
# As it was written.
apiVersion: v1
kind: ConfigMap
metadata: {name: words, annotations: {leeward.dev/gate: "not one of a gate"}}
data:
  text: |
    a
     --- b
"#;

const SHOP: &str = r#"--- # the writer
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: store}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: shop}}
  template:
    metadata:
      labels: {app: shop}
      annotations:
        leeward.dev/gate-app: shop
        leeward.dev/gate-roles: data
        leeward.dev/gate-ports: http:8080=8081
    spec:
      containers:
      - name: shop
        image: shop:1
        command: [/bin/sh, -c, "echo a\nexec /shop # it listens\n"]
        env:
        - {name: A, value: "yes"}
        - {name: B, value: "0644"}
        - {name: C, value: "1e3"}
        - {name: D, value: "~"}
        - {name: E, value: "12:30:45"}
        - {name: F, value: " x: y #z"}
        ports: [{containerPort: 8080}]
        volumeMounts: [{name: settings, mountPath: /etc/shop}]
        livenessProbe: {httpGet: {path: /healthz, port: 8080}}
      volumes:
      - name: settings
        configMap: {name: shop, defaultMode: 0644, optional: yes}
"#;

const BEHIND: &str = r#"--- # the writer
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
  namespace: store
spec:
  replicas: 1
  selector:
    matchLabels:
      app: shop
  strategy:
    type: Recreate
  template:
    metadata:
      annotations:
        leeward.dev/gate-app: shop
        leeward.dev/gate-ports: http:8080=8081
        leeward.dev/gate-roles: data
      labels:
        app: shop
    spec:
      containers:
      - args:
        - --role
        - $(POD_NAMESPACE)/shop/data
        - --port
        - http:8080=8081
        - --port
        - live:17445=127.0.0.1:8081
        - --
        - /bin/sh
        - -c
        - |
          echo a
          exec /shop # it listens
        command:
        - /var/run/leeward/bin/leeward-gate
        env:
        - name: A
          value: "yes"
        - name: B
          value: "0644"
        - name: C
          value: "1e3"
        - name: D
          value: "~"
        - name: E
          value: "12:30:45"
        - name: F
          value: " x: y #z"
        - name: POD_IP
          valueFrom:
            fieldRef:
              fieldPath: status.podIP
        - name: POD_UID
          valueFrom:
            fieldRef:
              fieldPath: metadata.uid
        - name: POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        image: shop:1
        livenessProbe:
          httpGet:
            path: /healthz
            port: 17445
        name: shop
        ports:
        - containerPort: 8080
        volumeMounts:
        - mountPath: /etc/shop
          name: settings
        - mountPath: /var/run/leeward/gate
          name: leeward-gate
          readOnly: true
        - mountPath: /var/run/leeward/bin
          name: leeward-gate-program
          readOnly: true
      initContainers:
      - args:
        - gate
        - --install
        - /var/run/leeward/bin
        image: leeward:1
        imagePullPolicy: IfNotPresent
        name: leeward-gate
        securityContext:
          allowPrivilegeEscalation: false
          capabilities:
            drop:
            - ALL
          readOnlyRootFilesystem: true
          runAsNonRoot: true
          seccompProfile:
            type: RuntimeDefault
        terminationMessagePolicy: FallbackToLogsOnError
        volumeMounts:
        - mountPath: /var/run/leeward/bin
          name: leeward-gate-program
      volumes:
      - configMap:
          defaultMode: 420
          name: shop
          optional: true
        name: settings
      - name: leeward-gate
        secret:
          optional: false
          secretName: leeward-shop-gate
      - emptyDir: {}
        name: leeward-gate-program
"#;

#[test]
fn a_writer_comes_out_behind_its_gate_and_everything_else_to_the_letter() {
    let first = "# What comes before the first one.\n";
    let out = injected(&format!("{first}{OTHERS}{SHOP}{OTHERS}"));
    assert_eq!(out, format!("{first}{OTHERS}{BEHIND}{OTHERS}"));
    assert_eq!(injected(&out), out, "twice is once");
    assert_eq!(injected(OTHERS), OTHERS);
    assert_eq!(injected(""), "");
}

#[test]
fn files_are_printed_one_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, "kind: A").unwrap();
    let file = file.to_str().unwrap();
    let output = run(&["--image", "leeward:1", "-f", file, "-f", "-"], "kind: B\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "kind: A\n---\nkind: B\n");
}

#[test]
fn an_error_names_file_and_object_and_nothing_is_printed() {
    let stdin = ["--image", "leeward:1", "-f", "-"];
    let host = SHOP.replace(
        "    spec:\n      containers",
        "    spec:\n      hostNetwork: true\n      containers",
    );
    let error = refused(1, &stdin, &format!("{SHOP}{host}"));
    assert!(
        error.starts_with("error: -: nothing was printed: Deployment store/shop: the pod has hostNetwork"),
        "{error}"
    );
    let error = refused(1, &stdin, &SHOP.replace("        command:", "        notCommand:"));
    assert!(error.contains("set command"), "{error}");
    let error = refused(1, &stdin, "a: [");
    assert!(error.starts_with("error: -: "), "{error}");
    let error = refused(1, &["--image", "leeward:1", "-f", "/nowhere"], "");
    assert!(error.contains("cannot read /nowhere"), "{error}");
    assert!(refused(2, &["-f", "-"], SHOP).contains("--image"));
    assert!(refused(2, &["--image", "", "-f", "-"], SHOP).contains("--image"));
}

#[test]
fn a_build_that_other_images_may_lack_libraries_for_is_not_brought_to_them() {
    let directory = tempfile::tempdir().unwrap();
    let called = directory.path().join("leeward-gate");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_leeward"), &called).unwrap();
    let to = directory.path().join("to");
    std::fs::create_dir(&to).unwrap();
    // By that name the program is the gate.
    for command in [
        &mut Command::new(&called),
        Command::new(env!("CARGO_BIN_EXE_leeward")).arg("gate"),
    ] {
        let output = command.arg("--install").arg(&to).output().unwrap();
        let there = std::fs::read_dir(&to).unwrap().count();
        match output.status.success() {
            true => assert_eq!(there, 1, "of a static build"),
            false => {
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(
                    error.contains("needs /lib") && error.contains("static build"),
                    "{error}"
                );
                assert_eq!(there, 0);
            }
        }
    }
}

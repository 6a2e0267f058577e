//! Cargo does not notice new migrations or query metadata by itself.

fn main() {
    for path in ["migrations", ".sqlx"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-env-changed=SQLX_OFFLINE");
}

//! Watches namespaces, and what each of them must hold.

use crate::context::Context;
use pintle_client::ClientError;
use pintle_informer::{Change, Informer, Outcome, Queue, Selector, run_reconciler};
use pintle_types::k8s::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use pintle_types::{Kind, ObjectKey, ObjectMeta};
use std::collections::BTreeMap;

const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

/// Keeps the `default` ServiceAccounts until the context's stop.
pub async fn run_accounts(context: Context) {
    let accounts = context.informers.of::<ServiceAccount>();
    let (namespaces, queue) = watch_namespaces(&context);
    queue_on_loss(&accounts, "default", &queue);
    namespaces.synced().await;
    accounts.synced().await;
    let reconcile = async |namespace: ObjectKey| {
        let key = ObjectKey::new(&*namespace.name, "default");
        if !is_active(&namespaces, &namespace) || accounts.get(&key).is_some() {
            return Ok(Outcome::Done);
        }
        let account = ServiceAccount { metadata: named(&key), ..ServiceAccount::default() };
        settled(context.client.create(&account).await)
    };
    run_reconciler("service-account-controller", queue, 1, reconcile, context.stop.clone()).await;
}

/// Keeps the ConfigMaps with the certificates until the context's stop.
pub async fn run_root_ca(context: Context, root_ca: String) {
    // Other ConfigMaps are none of this controller's business, nor of its memory.
    let maps = context.informers.selected::<ConfigMap>(Selector::fields(format!("metadata.name={ROOT_CA}")));
    let (namespaces, queue) = watch_namespaces(&context);
    queue_on_loss(&maps, ROOT_CA, &queue);
    namespaces.synced().await;
    maps.synced().await;
    let data = BTreeMap::from([("ca.crt".to_owned(), root_ca)]);
    let reconcile = async |namespace: ObjectKey| {
        if !is_active(&namespaces, &namespace) {
            return Ok(Outcome::Done);
        }
        let key = ObjectKey::new(&*namespace.name, ROOT_CA);
        let annotation = (DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned());
        let Some(present) = maps.get(&key) else {
            let annotations = Some(BTreeMap::from([annotation]));
            let metadata = ObjectMeta { annotations, ..named(&key) };
            let map = ConfigMap { metadata, data: Some(data.clone()), ..ConfigMap::default() };
            return settled(context.client.create(&map).await);
        };
        if present.data.as_ref() == Some(&data) && present.annotation(&annotation.0) == Some(&annotation.1) {
            return Ok(Outcome::Done);
        }
        let mut changed = ConfigMap::clone(&present);
        changed.data = Some(data.clone());
        changed.metadata.annotations.get_or_insert_default().insert(annotation.0, annotation.1);
        settled(context.client.update(&changed).await)
    };
    run_reconciler("root-ca-cert-publisher", queue, 1, reconcile, context.stop.clone()).await;
}

fn named(key: &ObjectKey) -> ObjectMeta {
    ObjectMeta { name: Some(key.name.clone()), namespace: Some(key.namespace.clone()), ..ObjectMeta::default() }
}

fn watch_namespaces(context: &Context) -> (Informer<Namespace>, Queue<ObjectKey>) {
    let (namespaces, queue) = (context.informers.of::<Namespace>(), Queue::new());
    let from_namespaces = queue.clone();
    namespaces.on_change(move |change| from_namespaces.add(change.object().key()));
    (namespaces, queue)
}

/// Looks at the namespace again when an object of that name changes or goes.
fn queue_on_loss<K: Kind>(informer: &Informer<K>, name: &'static str, queue: &Queue<ObjectKey>) {
    let queue = queue.clone();
    informer.on_change(move |change| {
        let object = change.object();
        if object.name() == name && !matches!(change, Change::Added(_)) {
            queue.add(ObjectKey::new("", object.namespace()));
        }
    });
}

fn is_active(namespaces: &Informer<Namespace>, key: &ObjectKey) -> bool {
    namespaces.get(key).is_some_and(|namespace| !namespace.is_deleting())
}

/// What others made meanwhile, and what nobody needs any more, is fine.
fn settled<T>(result: Result<T, ClientError>) -> Result<Outcome, ClientError> {
    match result {
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(Outcome::Done),
        other => other.map(|_| Outcome::Done),
    }
}

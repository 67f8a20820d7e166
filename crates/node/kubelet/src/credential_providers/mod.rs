//! Asks programs for the credentials of images, as the machine's configuration says, and keeps answers for a while.
//!
//! Source: `pkg/credentialprovider/plugin`, KEP-2133. A program gets a CredentialProviderRequest and answers with a
//! CredentialProviderResponse, both of `credentialprovider.kubelet.k8s.io/v1`; one that fails is as good as one that
//! knows nothing, and is told in the log.

mod config;
mod image_match;

pub use config::ConfigError;
use config::{Answer, CacheKey, Provider};
use image_match::{matches, registry};
use pintle_cri::AuthConfig;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a program may take: upstream's bound.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Answers that are kept of a program.
const MAX_KEPT: usize = 1024;

struct Kept {
    until: Instant,
    auth: Vec<(String, AuthConfig)>,
}

struct Asked {
    provider: Provider,
    program: PathBuf,
    /// Held while the program runs, so that it is asked once for what many pods want.
    kept: Mutex<HashMap<CacheKey, Kept>>,
}

/// The programs that know credentials.
pub struct CredentialProviders(Vec<Asked>);

impl std::fmt::Debug for CredentialProviders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|asked| &asked.program)).finish()
    }
}

impl CredentialProviders {
    /// Reads a CredentialProviderConfig; the programs are in `folder`.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn open(config: &Path, folder: &Path) -> Result<Self, ConfigError> {
        let asked = |provider: Provider| {
            let program = folder.join(&provider.name);
            if !program.is_file() {
                return Err(ConfigError::Program(program));
            }
            Ok(Asked { provider, program, kept: Mutex::default() })
        };
        config::read(config)?.into_iter().map(asked).collect::<Result<_, _>>().map(Self)
    }

    /// The credentials for an image (with its registry, without tag), the most specific first.
    pub(crate) async fn of(&self, image: &str) -> Vec<AuthConfig> {
        let mut found = Vec::new();
        for asked in &self.0 {
            if !asked.provider.images.iter().any(|pattern| matches(pattern, image)) {
                continue;
            }
            match asked.credentials(image).await {
                Ok(auth) => found.extend(auth.into_iter().filter(|(pattern, _)| matches(pattern, image))),
                Err(why) => {
                    tracing::warn!(why, program = ?asked.program, image, "a credential provider has no answer");
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| b.cmp(a));
        found.into_iter().map(|(_, auth)| auth).collect()
    }
}

impl Asked {
    async fn credentials(&self, image: &str) -> Result<Vec<(String, AuthConfig)>, String> {
        let mut kept = self.kept.lock().await;
        let keys =
            [CacheKey::Image(image.to_owned()), CacheKey::Registry(registry(image).to_owned()), CacheKey::Global];
        let now = Instant::now();
        if let Some(known) = keys.iter().find_map(|key| kept.get(key).filter(|known| known.until > now)) {
            return Ok(known.auth.clone());
        }
        let answered = tokio::time::timeout(PATIENCE, self.ask(image)).await;
        let output = answered.map_err(|_| format!("it took longer than {PATIENCE:?}"))??;
        let Answer { key, lasts, auth } = config::answer(&output, &self.provider.version, image)?;
        let lasts = lasts.unwrap_or(self.provider.cache);
        kept.retain(|_, known| known.until > now);
        if !lasts.is_zero() && kept.len() < MAX_KEPT {
            kept.insert(key, Kept { until: now + lasts, auth: auth.clone() });
        }
        Ok(auth)
    }

    async fn ask(&self, image: &str) -> Result<Vec<u8>, String> {
        let provider = &self.provider;
        let mut child = Command::new(&self.program)
            .args(&provider.args)
            .envs(provider.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("it can't be started: {e}"))?;
        let request = serde_json::json!({
            "kind": "CredentialProviderRequest", "apiVersion": provider.version, "image": image});
        if let Some(mut input) = child.stdin.take() {
            // A program that does not read what it is asked may answer all the same.
            let _ = input.write_all(request.to_string().as_bytes()).await;
        }
        let mut output = Vec::new();
        if let Some(from) = child.stdout.take() {
            let read = from.take(MAX_ANSWER_BYTES).read_to_end(&mut output).await;
            read.map_err(|e| format!("its answer can't be read: {e}"))?;
        }
        let ended = child.wait().await.map_err(|e| e.to_string())?;
        if ended.success() { Ok(output) } else { Err(format!("it failed: {ended}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Machine {
        folder: tempfile::TempDir,
        providers: CredentialProviders,
    }

    /// With a shell script as the provider, which counts how often it is asked.
    fn machine(answer: &str) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let script = format!(
            "#!/bin/sh\nread request\necho \"$1 $WHO $request\" >> {}\ncat <<'END'\n{answer}\nEND\n",
            path("asked").display()
        );
        std::fs::write(path("provider"), script).unwrap();
        std::fs::set_permissions(path("provider"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let config = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n\
            - name: provider\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  matchImages: ['*.example.com']\n  \
            defaultCacheDuration: 10m\n  args: [get]\n  env: [{name: WHO, value: me}]\n";
        std::fs::write(path("config"), config).unwrap();
        let providers = CredentialProviders::open(&path("config"), folder.path()).unwrap();
        Machine { folder, providers }
    }

    impl Machine {
        fn asked(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.folder.path().join("asked")).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        }

        async fn user(&self, image: &str) -> Option<String> {
            self.providers.of(image).await.into_iter().next().map(|auth| auth.username)
        }
    }

    fn answer(key: &str) -> String {
        format!(
            r#"{{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "cacheKeyType": "{key}", "auth": {{"*.example.com": {{"username": "all", "password": "p"}},
            "r.example.com/team": {{"username": "team", "password": "p"}}}}}}"#
        )
    }

    #[tokio::test]
    async fn a_program_is_asked_once_for_a_registry() {
        let machine = machine(&answer("Registry"));
        assert_eq!(machine.user("r.example.com/team/web").await.as_deref(), Some("team"));
        assert_eq!(machine.user("r.example.com/other").await.as_deref(), Some("all"));
        assert_eq!(machine.user("docker.io/library/nginx").await, None);
        let asked = machine.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(
            asked[0].starts_with("get me {") && asked[0].contains(r#""image":"r.example.com/team/web""#),
            "{asked:?}"
        );
        assert_eq!(machine.user("s.example.com/other").await.as_deref(), Some("all"));
        assert_eq!(machine.asked().len(), 2);
    }

    #[tokio::test]
    async fn answers_are_kept_by_image_or_for_all() {
        for (key, times) in [("Image", 2), ("Global", 1)] {
            let machine = machine(&answer(key));
            for image in ["r.example.com/a", "s.example.com/b", "r.example.com/a"] {
                assert_eq!(machine.user(image).await.as_deref(), Some("all"));
            }
            assert_eq!(machine.asked().len(), times, "{key}");
        }
    }

    #[tokio::test]
    async fn nonsense_is_no_answer() {
        for text in ["", "[]", "{}", &answer("Sometimes"), &answer("Image").replace("provider.kubelet", "other")] {
            assert_eq!(machine(text).user("r.example.com/a").await, None, "{text}");
        }
    }
}

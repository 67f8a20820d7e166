//! One stage of a build: its steps, each of which makes an image on the one before.

use crate::arguments::Arguments;
use crate::borrow::{self, Borrowed};
use crate::build::{Build, StageResult};
use crate::builder::short;
use crate::cache::Shape;
use crate::copy::Rules;
use crate::dockerfile::{CommandLine, Instruction, Lex, Stage, Step, parse_command};
use crate::error::{BuildError, Result, blocking};
use crate::mounted::{Layer, PREFIX};
use crate::output::{Message, Output};
use crate::{paths, ports, run};
use pintle_docker::go_format;
use pintle_docker::model::{Config, Empty, HealthConfig, without_nulls};
use pintle_image::{Commit, CommitSource, ImageRecord, Reference};
use rand::RngCore;
use serde_json::json;
use std::sync::Arc;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most layers that an image may have.
const MAX_LAYERS: usize = 125;

/// Where a stage begins.
pub(crate) struct StageStart {
    pub index: usize,
    /// Of its first step in the whole build.
    pub number: usize,
    /// All steps of the build.
    pub total: usize,
    pub arguments: Arguments,
}

/// A stage while it runs.
pub(crate) struct StageRun<'a> {
    pub build: &'a Build,
    pub output: Output,
    pub start: StageStart,
    pub lex: Lex,
    /// What the next step begins with.
    pub config: Config,
    /// The image so far; empty for nothing.
    pub image: String,
    author: String,
    command_set: bool,
    /// A step was not in the cache, so none after it is.
    busted: bool,
    /// Images that further steps may be borrowed from.
    sources: Vec<ImageRecord>,
    /// Containers of the current step, with whether there really is one.
    containers: Vec<(String, bool)>,
}

/// Where the files of a new image come from.
pub(crate) enum Files {
    Unchanged,
    Layer(Layer),
    Container(String),
}

/// As long as the id of a container.
pub(crate) fn new_id() -> String {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

impl<'a> StageRun<'a> {
    pub fn new(build: &'a Build, output: Output, start: StageStart) -> Self {
        let lex = Lex::new(build.dockerfile.escape);
        let (config, image, author, containers) = Default::default();
        let images = &build.builder.daemon.images;
        let sources = build.options.cache_from.iter().filter_map(|name| images.resolve(name)).collect();
        let (command_set, busted) = (false, false);
        Self { build, output, start, lex, config, image, author, command_set, busted, sources, containers }
    }

    /// Runs all steps.
    pub async fn run(mut self) -> Result<(StageResult, Arguments)> {
        let stage = &self.build.dockerfile.stages[self.start.index];
        if self.build.stage_named(&stage.name, self.start.index).is_some() {
            return Err(BuildError::new(format!("{} stage name already used", stage.name)));
        }
        let (mut number, total) = (self.start.number, self.start.total);
        self.output.text(format!("Step {number}/{total} : {}\n", stage.code)).await;
        self.begin(stage).await?;
        self.told().await;
        for step in &stage.steps {
            if self.build.cancel.is_cancelled() {
                return Err(BuildError::cancelled());
            }
            number += 1;
            self.output.text(format!("Step {number}/{total} : {}\n", step.code)).await;
            self.step(step).await?;
            self.told().await;
        }
        if !self.image.is_empty() {
            self.output.tell(Message::Image(self.image.clone())).await;
        }
        Ok((StageResult { image: self.image }, self.start.arguments))
    }

    /// The step is done: the next one stands on its image.
    async fn told(&mut self) {
        self.config.image.clone_from(&self.image);
        self.output.text(format!(" ---> {}\n", short(&self.image))).await;
    }

    async fn begin(&mut self, stage: &Stage) -> Result<()> {
        let variables = self.start.arguments.global_variables();
        let expand = |text: &str| self.lex.word(text, &variables[..]).map_err(BuildError::new);
        let platform = expand(&stage.platform)?;
        self.check_platform(if platform.is_empty() { &self.build.options.platform } else { &platform })?;
        let name = expand(&stage.base)?;
        if name.is_empty() {
            return Err(BuildError::new(format!("base name ({}) should not be blank", stage.base)));
        }
        self.image = self.base(&name).await?;
        self.config = self.config_of(&self.image).await?;
        let environment = self.config.env.get_or_insert_default();
        if !environment.iter().any(|v| v.split('=').next() == Some("PATH")) {
            environment.push(PATH.to_owned());
        }
        (self.config.open_stdin, self.config.stdin_once) = (false, false);
        self.triggers().await
    }

    fn check_platform(&self, platform: &str) -> Result<()> {
        let mut parts = platform.split('/');
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next());
        let own = self.build.platform.split('/').nth(1);
        let same = match architecture {
            None => os.is_empty() || os == "linux" || Some(os) == own,
            Some(_) => os == "linux" && architecture == own,
        };
        if same {
            return Ok(());
        }
        let own = &self.build.platform;
        Err(BuildError::invalid(format!("building for {platform} is not supported: this machine is {own}")))
    }

    /// The id of the image that a name means: a stage, or an image, which is pulled when it is not here.
    async fn base(&self, name: &str) -> Result<String> {
        if let Some(index) = self.build.stage_named(name, self.start.index) {
            return Ok(self.build.result(index).await?.image);
        }
        if name == "scratch" { Ok(String::new()) } else { self.image_named(name).await }
    }

    /// The id of an image, which is pulled when it is not here.
    pub async fn image_named(&self, name: &str) -> Result<String> {
        let images = &self.build.builder.daemon.images;
        let found = images.resolve(name).map(|image| image.id);
        let by_id = found.as_ref().is_some_and(|id| id == name || id.strip_prefix("sha256:") == Some(name));
        if let Some(id) = found.filter(|_| by_id || !self.build.options.pull) {
            return Ok(id);
        }
        let reference: Reference = name.parse().map_err(|_| BuildError::invalid("invalid reference format"))?;
        self.build.remote.pull(&reference, &self.output).await?;
        let found = images.resolve(&reference.to_string());
        found
            .map(|image| image.id)
            .ok_or_else(|| BuildError { status: 404, ..BuildError::new(format!("No such image: {name}")) })
    }

    async fn config_of(&self, image: &str) -> Result<Config> {
        if image.is_empty() {
            return Ok(Config::default());
        }
        let (images, id) = (Arc::clone(&self.build.builder.daemon.images), image.to_owned());
        blocking(move || {
            let config = without_nulls(images.configuration_json(&id)?["config"].take());
            if config.is_null() {
                return Ok(Config::default());
            }
            serde_json::from_value(config).map_err(|e| BuildError::new(format!("the configuration of {id}: {e}")))
        })
        .await
    }

    /// Runs what waited behind ONBUILD.
    async fn triggers(&mut self) -> Result<()> {
        let triggers = self.config.on_build.take().unwrap_or_default();
        if triggers.is_empty() {
            return Ok(());
        }
        let plural = if triggers.len() > 1 { "s" } else { "" };
        self.output.text(format!("# Executing {} build trigger{plural}\n", triggers.len())).await;
        for trigger in &triggers {
            self.config.image.clone_from(&self.image);
            let step = parse_command(trigger).map_err(BuildError::new)?;
            self.step(&step).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        let mut instruction = step.instruction.clone();
        let environment = self.config.env.clone().unwrap_or_default();
        let mut variables = environment.clone();
        variables.extend(self.start.arguments.in_use(&environment));
        instruction.expand(&self.lex, &variables[..]).map_err(BuildError::invalid)?;
        let outcome = self.dispatch(instruction, &variables).await;
        let options = &self.build.options;
        let removes = options.force_remove || (options.remove && outcome.is_ok());
        for (id, real) in std::mem::take(&mut self.containers) {
            match (real, removes) {
                (true, true) => self.build.builder.remove_container(&id).await,
                (true, false) => self.build.builder.note_container(&id, false),
                (false, _) => {}
            }
            if removes {
                self.output.text(format!(" ---> Removed intermediate container {}\n", short(&id))).await;
            }
        }
        outcome
    }

    async fn dispatch(&mut self, instruction: Instruction, variables: &[String]) -> Result<()> {
        let comment = match instruction {
            Instruction::Add(copying) => return Box::pin(self.copy("ADD", copying)).await,
            Instruction::Copy(copying) => return Box::pin(self.copy("COPY", copying)).await,
            Instruction::Run { line, flags } => return Box::pin(self.run_step(line, flags)).await,
            Instruction::WorkDir(path) => return Box::pin(self.work_dir(&path)).await,
            Instruction::Entrypoint(line) => {
                let words = self.command(line);
                let text = go_format::quote_all(&words);
                self.config.entrypoint = (!words.is_empty()).then_some(words);
                if !self.command_set {
                    self.config.cmd = None;
                }
                format!("ENTRYPOINT {text}")
            }
            Instruction::Cmd(line) => {
                let set = !line.words.is_empty();
                let words = self.command(line);
                let comment = format!("CMD {}", go_format::quote_all(&words));
                self.config.cmd = Some(words);
                self.commit(&comment).await?;
                self.command_set |= set;
                return Ok(());
            }
            Instruction::Expose(ports) => self.expose(&ports, variables)?,
            Instruction::HealthCheck(check) => self.health_check(check).await,
            other => self.set(other)?,
        };
        self.commit(&comment).await
    }

    /// Instructions that only set something; returns what the history says of them.
    fn set(&mut self, instruction: Instruction) -> Result<String> {
        Ok(match instruction {
            Instruction::Env(pairs) => {
                let mut comment = String::from("ENV");
                for (name, value) in pairs {
                    comment.push_str(&format!(" {name}={value}"));
                    set_variable(self.config.env.get_or_insert_default(), &name, &value);
                }
                comment
            }
            Instruction::Label { pairs, .. } => {
                let mut comment = String::from("LABEL");
                for (name, value) in pairs {
                    comment.push_str(&format!(" {name}={value}"));
                    self.config.labels.get_or_insert_default().insert(name, value);
                }
                comment
            }
            Instruction::Arg(arguments) => {
                let shown = arguments.iter().map(|(name, value)| match value {
                    Some(value) => format!("{name}={value}"),
                    None => name.clone(),
                });
                let comment = format!("ARG {}", shown.collect::<Vec<_>>().join(" "));
                for (name, value) in arguments {
                    self.start.arguments.declare(&name, value);
                }
                comment
            }
            Instruction::Maintainer(author) => {
                self.author.clone_from(&author);
                format!("MAINTAINER {author}")
            }
            Instruction::OnBuild(expression) => {
                let comment = format!("ONBUILD {expression}");
                self.config.on_build.get_or_insert_default().push(expression);
                comment
            }
            Instruction::User(user) => {
                let comment = format!("USER {user}");
                self.config.user = user;
                comment
            }
            Instruction::Volume(volumes) => {
                let comment = format!("VOLUME {}", go_format::list(&volumes));
                if volumes.iter().any(String::is_empty) {
                    return Err(BuildError::new("VOLUME specified can not be an empty string"));
                }
                self.config.volumes.get_or_insert_default().extend(volumes.into_iter().map(|v| (v, Empty {})));
                comment
            }
            Instruction::StopSignal(signal) => {
                ports::check_signal(&signal).map_err(BuildError::invalid)?;
                let comment = format!("STOPSIGNAL {signal}");
                self.config.stop_signal = signal;
                comment
            }
            Instruction::Shell(shell) => {
                let comment = format!("SHELL {}", go_format::list(&shell));
                self.config.shell = Some(shell);
                comment
            }
            other => return Err(BuildError::new(format!("unsupported command type: {other:?}"))),
        })
    }

    fn expose(&mut self, words: &[String], variables: &[String]) -> Result<String> {
        let mut all = Vec::new();
        for word in words {
            all.extend(self.lex.words(word, variables).map_err(BuildError::invalid)?);
        }
        let comment = format!("EXPOSE {}", all.join(" "));
        let mut exposed = Vec::new();
        for word in &all {
            exposed.extend(ports::parse(word).map_err(BuildError::new)?);
        }
        self.config.exposed_ports.get_or_insert_default().extend(exposed.into_iter().map(|port| (port, Empty {})));
        Ok(comment)
    }

    async fn health_check(&mut self, check: crate::dockerfile::HealthCheck) -> String {
        let old = self.config.healthcheck.as_ref().map(|old| &old.test);
        if let Some(old) = old.filter(|old| old.first().is_some_and(|kind| kind != "NONE")) {
            self.output.text(format!("Note: overriding previous HEALTHCHECK: {}\n", go_format::list(old))).await;
        }
        let time = go_format::duration;
        let comment = format!(
            "HEALTHCHECK &{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            go_format::list(&check.test),
            time(check.interval),
            time(check.timeout),
            time(check.start_period),
            time(check.start_interval),
            check.retries
        );
        self.config.healthcheck = Some(HealthConfig {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        });
        comment
    }

    fn shell(&self) -> Vec<String> {
        let own = self.config.shell.clone().filter(|shell| !shell.is_empty());
        own.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()])
    }

    fn command(&self, line: CommandLine) -> Vec<String> {
        if line.shell && !line.words.is_empty() { [self.shell(), line.words].concat() } else { line.words }
    }

    /// The configuration with a comment for a command.
    pub fn commented(&self, words: &[&str]) -> Config {
        let words = words.iter().map(|w| (*w).to_owned()).collect();
        Config { cmd: Some([self.shell(), words].concat()), ..self.config.clone() }
    }

    /// Makes an image of a new configuration alone.
    async fn commit(&mut self, comment: &str) -> Result<()> {
        let step = self.commented(&["#(nop) ", comment]);
        if self.cached(&step).await {
            return Ok(());
        }
        self.imitate_container().await;
        self.list(step, Files::Unchanged).await
    }

    /// Takes the step's image from the cache, when it is there.
    pub async fn cached(&mut self, step: &Config) -> bool {
        if self.build.options.no_cache || self.busted {
            return false;
        }
        let builder = &self.build.builder;
        let images = &builder.daemon.images;
        let mut found = builder.cache.find(&self.shape(step), images);
        if !self.build.options.cache_from.is_empty() {
            // Then only what led to one of those images counts.
            found = found.filter(|id| self.sources.iter().any(|s| borrow::is_ancestor(images, s, id)));
            if found.is_none() {
                found = self.borrow(step).await;
            }
        }
        self.busted = found.is_none();
        let Some(id) = found else { return false };
        self.output.text(" ---> Using cache\n").await;
        self.image = id;
        true
    }

    /// Makes the step's image of what an image of `--cache-from` has.
    async fn borrow(&mut self, step: &Config) -> Option<String> {
        let images = Arc::clone(&self.build.builder.daemon.images);
        let parent = images.resolve(&self.image).filter(|_| !self.image.is_empty());
        let created_by = step.cmd.as_ref().map(|words| words.join(" ")).unwrap_or_default();
        let (image, layer, created) = match borrow::find(&mut self.sources, parent.as_ref(), &created_by)? {
            Borrowed::Whole(id) => return Some(id),
            Borrowed::Step { image, layer, created } => (image, layer, created),
        };
        let (config, author) = (json(&self.config).ok()?, self.author.clone());
        let made = blocking(move || {
            let commit = Commit {
                source: layer.map_or(CommitSource::Nothing, |layer| CommitSource::Of { image: &image, layer }),
                parent: parent.as_ref().map(|p| p.id.as_str()),
                config,
                created_by: &created_by,
                author: &author,
                created: &created,
                ..Commit::default()
            };
            Ok(images.commit(&commit)?.id)
        });
        match made.await {
            Ok(id) => Some(id),
            Err(error) => {
                tracing::warn!(%error, "a step cannot be taken from an image of --cache-from");
                None
            }
        }
    }

    fn shape<'s>(&'s self, step: &'s Config) -> Shape<'s> {
        Shape { parent: &self.image, platform: &self.build.platform, author: &self.author, config: step }
    }

    /// Docker makes a container for every step, and tells of it: here there is one only where something runs.
    pub async fn imitate_container(&mut self) {
        let id = new_id();
        self.output.text(format!(" ---> Running in {}\n", short(&id))).await;
        self.containers.push((id, false));
    }

    /// Lists the step's image.
    pub async fn list(&mut self, step: Config, files: Files) -> Result<()> {
        let builder = Arc::clone(&self.build.builder);
        let images = Arc::clone(&builder.daemon.images);
        let parent = (!self.image.is_empty()).then(|| self.image.clone());
        let config = json(&self.config)?;
        let extra = json!({ "container_config": json(&step)?, "docker_version": "28.5.0" });
        let created_by = step.cmd.as_ref().map(|words| words.join(" ")).unwrap_or_default();
        let author = self.author.clone();
        let keeps_container = !self.build.options.remove && !self.build.options.force_remove;
        let committed = blocking(move || {
            let key = match &files {
                Files::Unchanged => String::new(),
                Files::Layer(layer) => layer.key.clone(),
                Files::Container(id) => pintle_docker::containers::record::snapshot_key(id),
            };
            let source = match &files {
                Files::Unchanged => CommitSource::Nothing,
                Files::Container(_) if keeps_container => CommitSource::Snapshot(&key),
                Files::Layer(_) | Files::Container(_) => CommitSource::Spent(&key),
            };
            let commit = Commit {
                source,
                parent: parent.as_deref(),
                config,
                extra,
                created_by: &created_by,
                author: &author,
                ..Commit::default()
            };
            Ok(images.commit(&commit)?)
        });
        let image = committed.await?;
        if image.chain.len() > MAX_LAYERS {
            return Err(BuildError::new("max depth exceeded"));
        }
        builder.cache.note(&self.shape(&step), &image.id);
        self.image = image.id;
        Ok(())
    }

    async fn run_step(&mut self, line: CommandLine, flags: Vec<String>) -> Result<()> {
        if let Some(flag) = flags.first() {
            return Err(needs_buildkit(flag));
        }
        let shell = if line.shell { self.shell() } else { Vec::new() };
        let mut told = [&shell[..], &line.words].concat();
        let environment = self.config.env.clone().unwrap_or_default();
        let arguments = self.start.arguments.in_use(&environment);
        if !arguments.is_empty() {
            let shaping: Vec<String> = arguments.iter().filter(|a| self.start.arguments.shapes(a)).cloned().collect();
            told = [vec![format!("|{}", shaping.len())], shaping, told].concat();
        }
        let step = Config { cmd: Some(told), entrypoint: None, ..self.config.clone() };
        if self.cached(&step).await {
            return Ok(());
        }
        if self.image.is_empty() {
            return Err(BuildError::new("a command cannot run in an empty image: copy files into it first"));
        }
        let mut line = line;
        let script = run::Script::take(self.build, &mut line)?;
        let command = [shell, line.words].concat();
        let config = Config {
            image: self.image.clone(),
            cmd: Some(command.clone()),
            env: Some([environment, arguments].concat()),
            ..self.config.clone()
        };
        let id = run::create(self.build, config, script.as_ref(), &self.output).await?;
        self.containers.push((id.clone(), true));
        run::run(self.build, &id, &command, &self.output).await?;
        self.list(step, Files::Container(id)).await
    }

    async fn work_dir(&mut self, path: &str) -> Result<()> {
        if path.is_empty() {
            return Err(BuildError::new("cannot normalize nothing"));
        }
        self.config.working_dir = paths::below(&self.config.working_dir, path);
        let step = self.commented(&[&format!("#(nop) WORKDIR {}", self.config.working_dir)]);
        if self.cached(&step).await {
            return Ok(());
        }
        self.imitate_container().await;
        let directory = self.config.working_dir.clone();
        let builder = Arc::clone(&self.build.builder);
        let layer = self.new_layer().await?;
        let layer = blocking(move || {
            let root = layer.root(&builder.temporary())?;
            let made = root.make_directory(std::path::Path::new(&directory), |_| Ok(()));
            made.map_err(|e| BuildError::io(format_args!("mkdir {directory}"), e))?;
            Ok(layer)
        });
        let layer = layer.await?;
        self.list(step, Files::Layer(layer)).await
    }

    /// A layer on the image so far.
    pub async fn new_layer(&self) -> Result<Layer> {
        let (images, image) = (Arc::clone(&self.build.builder.daemon.images), self.image.clone());
        blocking(move || Layer::on(&images, &image, format!("{PREFIX}{}", new_id()))).await
    }

    /// The rules of a copy in this stage.
    pub fn rules(&self, chmod: &str, keep_owner: bool) -> Result<Rules> {
        let invalid = || {
            BuildError::new(format!(
                "invalid chmod parameter: '{chmod}'. it should be octal string and between 0 and 07777"
            ))
        };
        let mode = match chmod {
            "" => None,
            text => Some(u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(invalid)?),
        };
        Ok(Rules { owner: (!keep_owner).then_some((0, 0)), mode, unpack: false })
    }
}

pub(crate) fn needs_buildkit(flag: &str) -> BuildError {
    BuildError::new(format!(
        "the --{flag} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build \
         images with BuildKit enabled"
    ))
}

fn json(config: &Config) -> Result<serde_json::Value> {
    serde_json::to_value(config).map_err(|e| BuildError::new(e.to_string()))
}

fn set_variable(environment: &mut Vec<String>, name: &str, value: &str) {
    let new = format!("{name}={value}");
    match environment.iter_mut().find(|old| old.split('=').next() == Some(name)) {
        Some(old) => *old = new,
        None => environment.push(new),
    }
}

//! One build: its stages side by side, what they tell one after the other.

use crate::arguments::Arguments;
use crate::builder::Builder;
use crate::context::Context;
use crate::dockerfile::{Dockerfile, Instruction, Lex};
use crate::error::{BuildError, Result};
use crate::options::{Options, Remote};
use crate::output::{Message, Output};
use crate::stage::{StageRun, StageStart};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How a stage ended.
#[derive(Clone, Debug)]
pub(crate) struct StageResult {
    /// Empty for a stage that is nothing.
    pub image: String,
}

/// What the stages of a build share.
pub(crate) struct Build {
    pub builder: Arc<Builder>,
    pub options: Options,
    pub remote: Arc<dyn Remote>,
    pub context: Option<Arc<Context>>,
    pub dockerfile: Dockerfile,
    pub cancel: CancellationToken,
    /// `os/architecture`
    pub platform: String,
    results: Vec<watch::Sender<Option<StageResult>>>,
}

type Ended = (StageResult, Arguments);

impl Build {
    pub fn new(
        builder: Arc<Builder>,
        options: Options,
        remote: Arc<dyn Remote>,
        context: Option<Arc<Context>>,
        dockerfile: Dockerfile,
        cancel: CancellationToken,
    ) -> Self {
        let results = dockerfile.stages.iter().map(|_| watch::Sender::new(None)).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let platform = format!("linux/{architecture}");
        Self { builder, options, remote, context, dockerfile, cancel, platform, results }
    }

    /// Runs all stages; returns the id of the last one's image.
    pub async fn run(self: Arc<Self>, output: Output) -> Result<String> {
        let mut arguments = Arguments::new(self.options.build_args.clone());
        let steps: usize = self.dockerfile.stages.iter().map(|stage| 1 + stage.steps.len()).sum();
        let total = self.dockerfile.arguments.len() + steps;
        let mut number = 1;
        for step in &self.dockerfile.arguments {
            output.text(format!("Step {number}/{total} : {}\n", step.code)).await;
            number += 1;
            self.global_argument(step.instruction.clone(), &mut arguments)?;
        }
        let mut stages = Vec::with_capacity(self.dockerfile.stages.len());
        for (index, stage) in self.dockerfile.stages.iter().enumerate() {
            let start = StageStart { index, number, total, arguments: arguments.for_stage() };
            number += 1 + stage.steps.len();
            stages.push(self.spawn(start));
        }
        let outcome = self.follow(stages, &output, &mut arguments).await;
        let last = outcome?;
        if let Some(warning) = arguments.warning() {
            output.text(warning).await;
        }
        if last.is_empty() {
            return Err(BuildError::new("No image was generated. Is your Dockerfile empty?"));
        }
        Ok(last)
    }

    fn global_argument(&self, mut instruction: Instruction, arguments: &mut Arguments) -> Result<()> {
        let variables = arguments.declared_variables();
        let lex = Lex::new(self.dockerfile.escape);
        instruction.expand(&lex, &variables[..]).map_err(BuildError::new)?;
        if let Instruction::Arg(pairs) = instruction {
            for (name, value) in pairs {
                arguments.declare_global(&name, value);
            }
        }
        Ok(())
    }

    fn spawn(self: &Arc<Self>, start: StageStart) -> (mpsc::Receiver<Message>, JoinHandle<Result<Ended>>) {
        let (output, messages) = Output::channel();
        let build = Arc::clone(self);
        let running = tokio::spawn(async move {
            let index = start.index;
            let ended = StageRun::new(&build, output, start).run().await;
            match &ended {
                Ok((result, _)) => drop(build.results[index].send_replace(Some(result.clone()))),
                // Stages that wait for this one end too.
                Err(_) => build.cancel.cancel(),
            }
            ended
        });
        (messages, running)
    }

    /// Tells what the stages tell, in their order. The first that fails ends all.
    async fn follow(
        &self,
        stages: Vec<(mpsc::Receiver<Message>, JoinHandle<Result<Ended>>)>,
        output: &Output,
        arguments: &mut Arguments,
    ) -> Result<String> {
        let mut outcome = Ok(String::new());
        let mut first_failure: Option<BuildError> = None;
        for (mut messages, running) in stages {
            while let Some(message) = messages.recv().await {
                if outcome.is_ok() {
                    output.tell(message).await;
                }
            }
            let ended = running.await.unwrap_or_else(|e| Err(BuildError::new(format!("a stage ended early: {e}"))));
            match ended {
                Ok((result, used)) if outcome.is_ok() => {
                    arguments.note_referenced(&used);
                    outcome = Ok(result.image);
                }
                Ok(_) => {}
                Err(error) => {
                    // One that was only told to end is not the reason.
                    if error != BuildError::cancelled() && first_failure.is_none() {
                        first_failure = Some(error.clone());
                    }
                    outcome = outcome.and(Err(error));
                }
            }
        }
        match (outcome, first_failure) {
            (Err(error), Some(reason)) if error == BuildError::cancelled() => Err(reason),
            (outcome, _) => outcome,
        }
    }

    /// The stage that a name means before a stage: the last of that name among those above.
    pub fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        let wanted = name.to_lowercase();
        self.dockerfile.stages[..before].iter().position(|stage| !stage.name.is_empty() && stage.name == wanted)
    }

    /// Waits for a stage.
    pub async fn result(&self, index: usize) -> Result<StageResult> {
        let mut result = self.results[index].subscribe();
        tokio::select! {
            found = result.wait_for(Option::is_some) => {
                found.ok().and_then(|found| found.clone()).ok_or_else(BuildError::cancelled)
            }
            () = self.cancel.cancelled() => Err(BuildError::cancelled()),
        }
    }
}

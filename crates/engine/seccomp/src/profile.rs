//! What a seccomp profile says: what to do with which system call under which conditions.

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Log,
    /// It fails with this error number.
    Errno(u16),
    KillThread,
    KillProcess,
    Trap,
}

impl Action {
    /// SECCOMP_RET_* of linux/seccomp.h.
    pub fn value(self) -> u32 {
        match self {
            Action::Allow => 0x7fff_0000,
            Action::Log => 0x7ffc_0000,
            Action::Errno(number) => 0x0005_0000 | u32::from(number),
            Action::Trap => 0x0003_0000,
            Action::KillThread => 0,
            Action::KillProcess => 0x8000_0000,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal after this mask.
    Masked(u64),
}

/// A condition on an argument (0 to 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    pub argument: u8,
    pub compare: Compare,
    pub value: u64,
}

/// Calls that, when all conditions hold, get an action. The first rule that holds counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub names: Vec<String>,
    pub conditions: Vec<Condition>,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Of calls that no rule is about.
    pub default: Action,
    pub rules: Vec<Rule>,
}
